//! One loaded model, and one call of it: what can be made ready is made at load, and a run allocates little but its outputs.

use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::sys::OrtValue;
use ort::{AsPointer, api};
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{Code, DType, Error, Result, Tensor};
use smallvec::SmallVec;

use super::value::{self, Value};

/// A model in the runtime, shared by the instances that run it at the same time: one copy of its weights.
pub(super) struct Session {
    session: ort::session::Session,
    inputs: Vec<CString>,
    outputs: Vec<(CString, DType)>,
    memory: MemoryInfo<'static>,
}

impl Session {
    /// Makes ready what every run needs.
    pub(super) fn new(session: ort::session::Session, outputs: &[TensorSpec]) -> Result<Self> {
        let refuse = |why: String| Error::new(Code::LoadFailed, why);
        let name = |name: &str| {
            CString::new(name).map_err(|_| refuse(format!("the name `{}` has a NUL character in it", name.replace('\0', "\\0"))))
        };
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default);
        Ok(Self {
            inputs: session.inputs().iter().map(|input| name(input.name())).collect::<Result<_>>()?,
            outputs: outputs.iter().map(|output| Ok((name(&output.name)?, output.dtype))).collect::<Result<_>>()?,
            memory: memory.map_err(|error| refuse(error.message().to_owned()))?,
            session,
        })
    }

    /// Runs the model once. `inputs` and `wanted` are as [`crate::Engine::run`] has them.
    #[allow(unsafe_code, reason = "ort's own call wants the session alone, and makes names and options anew for each run")]
    pub(super) fn run(self: &Arc<Self>, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        if inputs.len() != self.inputs.len() {
            return Err(value::failed(&format!("the model takes {} inputs, got {}", self.inputs.len(), inputs.len())));
        }
        let aligned: SmallVec<[_; 2]> = inputs.iter().map(value::aligned).collect();
        let values = aligned.iter().map(|tensor| value::input(tensor, &self.memory)).collect::<Result<SmallVec<[Value; 4]>>>()?;
        let pointers: SmallVec<[*const OrtValue; 4]> = values.iter().map(Value::pointer).collect();
        let input_names: SmallVec<[*const c_char; 4]> = self.inputs.iter().map(|name| name.as_ptr()).collect();
        let mut output_names: SmallVec<[*const c_char; 4]> = SmallVec::new();
        for &output in wanted {
            let Some((name, _)) = self.outputs.get(output) else {
                return Err(value::failed(&format!("the model has {} outputs, not one number {output}", self.outputs.len())));
            };
            output_names.push(name.as_ptr());
        }
        let mut made: SmallVec<[*mut OrtValue; 4]> = SmallVec::from_elem(null_mut(), wanted.len());
        // SAFETY: names, values and the room for outputs are as many as is said and live through the call; names end with NUL.
        // ONNX Runtime documents `Run` as safe to call from several threads on one session, and the processor's kernels keep
        // to that; sessions on other devices are given to one instance alone (see `onnx.rs`).
        let status = unsafe {
            (api().Run)(
                self.session.ptr().cast_mut(),
                null(),
                input_names.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                output_names.as_ptr(),
                output_names.len(),
                made.as_mut_ptr(),
            )
        };
        // What was made is taken over before anything can fail, so that nothing is lost.
        let made: SmallVec<[Option<Value>; 4]> = made.into_iter().map(Value::new).collect();
        value::checked(status)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (made, &output) in made.into_iter().zip(wanted) {
            let made = made.ok_or_else(|| value::failed("the model gave nothing for an output"))?;
            outputs.push(value::output(made, self.outputs[output].1, self)?);
        }
        Ok(outputs)
    }
}
