//! How much memory of a GPU is taken, as its driver tells. The driver's library is opened at run time: none, no answer.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::OnceLock;

use libloading::Library;

/// Bytes that are taken on this CUDA device, whoever took them. `None` where there is no driver, no such device, or nothing in this process that
/// uses it: to ask would take some hundred MB of it.
pub fn memory_taken_on(gpu: u32) -> Option<u64> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER.get_or_init(Driver::open).as_ref()?.memory_taken_on(gpu)
}

type Status = c_int;
type Context = *mut c_void;

/// Calls of the CUDA Driver API, by the names that its library has them under (NVIDIA, CUDA Driver API, 6.7 "Primary Context Management",
/// 6.8 "Context Management", 6.13 "Memory Management"). 0 is success.
struct Driver {
    // SAFETY: these are types alone, as cuda.h has them; where one is called stands why that is sound.
    device: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    state: unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> Status,
    retain: unsafe extern "C" fn(*mut Context, c_int) -> Status,
    release: unsafe extern "C" fn(c_int) -> Status,
    push: unsafe extern "C" fn(Context) -> Status,
    pop: unsafe extern "C" fn(*mut Context) -> Status,
    memory: unsafe extern "C" fn(*mut usize, *mut usize) -> Status,
    _library: Library,
}

impl Driver {
    #[allow(unsafe_code, reason = "a library that may be missing is opened by name")]
    fn open() -> Option<Self> {
        const NAME: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };
        // SAFETY: the driver's library has no code that runs when it is opened but its own initialisation, and the engines open it too. The
        // types are those of cuda.h. The library lives as long as what was found in it, which leaves by copies of pointers in `self` alone.
        unsafe {
            let library = Library::new(NAME).ok()?;
            let init: unsafe extern "C" fn(c_uint) -> Status = *library.get(b"cuInit").ok()?;
            if init(0) != 0 {
                return None;
            }
            Some(Self {
                device: *library.get(b"cuDeviceGet").ok()?,
                state: *library.get(b"cuDevicePrimaryCtxGetState").ok()?,
                retain: *library.get(b"cuDevicePrimaryCtxRetain").ok()?,
                release: *library.get(b"cuDevicePrimaryCtxRelease_v2").ok()?,
                push: *library.get(b"cuCtxPushCurrent_v2").ok()?,
                pop: *library.get(b"cuCtxPopCurrent_v2").ok()?,
                memory: *library.get(b"cuMemGetInfo_v2").ok()?,
                _library: library,
            })
        }
    }

    #[allow(unsafe_code, reason = "calls of the driver's")]
    fn memory_taken_on(&self, gpu: u32) -> Option<u64> {
        let done = |status| (status == 0).then_some(());
        let (mut device, mut flags, mut active) = (0, 0, 0);
        let (mut context, mut popped) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut free, mut total) = (0, 0);
        // SAFETY: each pointer is to a local of the type that cuda.h asks for, and lives through its call. A context that is retained is released,
        // and one that is pushed is popped, so that the thread is left as it was.
        unsafe {
            done((self.device)(&raw mut device, c_int::try_from(gpu).ok()?))?;
            done((self.state)(device, &raw mut flags, &raw mut active))?;
            if active == 0 {
                return None;
            }
            done((self.retain)(&raw mut context, device))?;
            let mut told = None;
            if (self.push)(context) == 0 {
                told = done((self.memory)(&raw mut free, &raw mut total));
                (self.pop)(&raw mut popped);
            }
            (self.release)(device);
            told?;
        }
        Some(total.saturating_sub(free) as u64)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn asking_is_harmless_where_nobody_uses_a_gpu() {
        assert_eq!(super::memory_taken_on(0), None);
        assert_eq!(super::memory_taken_on(u32::MAX), None);
    }
}
