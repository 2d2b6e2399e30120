//! What a version takes and gives: names, types, shapes, ranges and labels; and the named fields of one record.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::DType;
use crate::error::{Code, Error, Result};
use crate::shape::{Dim, Dims, MAX_RANK};

/// What is known of a value beyond its type: for documentation, validation and dashboards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct About {
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The unit, such as `EUR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Smallest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest allowed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The allowed values of a string.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

/// A name for one column of an input's last axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Feature {
    /// The column's name.
    pub name: Arc<str>,
    /// What is known of it.
    #[serde(flatten)]
    pub about: About,
}

/// What the numbers of an output mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An index into the labels, or a label itself.
    Label,
    /// One probability a label.
    Probability,
    /// One score a label, on no fixed scale.
    Score,
    /// A plain number.
    #[default]
    Value,
}

/// One input or output of a version.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSpec {
    /// The engine's name for it.
    pub name: Arc<str>,
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions, the batch dimension included.
    pub dims: Vec<Dim>,
    /// What the whole tensor is.
    #[serde(flatten)]
    pub about: About,
    /// Names for the columns of an input's last axis; empty where they have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// The meaning of an output.
    pub kind: Kind,
    /// Names for classes, by index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What an input's free dimensions may be filled up with, so that requests of different sizes share a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad: Option<f64>,
}

impl TensorSpec {
    /// A tensor of which nothing but name, type and dimensions is known.
    pub fn new(name: &str, dtype: DType, dims: Vec<Dim>) -> Self {
        Self {
            name: name.into(),
            dtype,
            dims,
            about: About::default(),
            features: Vec::new(),
            kind: Kind::default(),
            labels: Vec::new(),
            pad: None,
        }
    }
}

/// One value of a record: a column of an input, or a whole input.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name that callers use.
    pub name: Arc<str>,
    /// Which input it goes to.
    pub input: usize,
    /// Which column of that input; `None` where it is the whole input.
    pub column: Option<usize>,
    /// Its element type.
    pub dtype: DType,
    /// The dimensions of its value in one record; empty for a scalar.
    pub dims: Vec<Dim>,
    /// What is known of it.
    pub about: About,
}

/// A version's inputs and outputs, and the record that people fill in to call it.
#[derive(Clone, Debug, PartialEq)]
pub struct Signature {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    batched: bool,
    example: Option<serde_json::Value>,
    fields: Vec<Field>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Signature {
    /// Puts a signature together and names its fields.
    ///
    /// # Errors
    /// [`Code::BadSignature`] where names repeat, a rank is out of bounds, or features do not fit an input.
    pub fn new(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, example: Option<serde_json::Value>) -> Result<Self> {
        let batched = is_batched(inputs.iter().chain(&outputs));
        Self::build(inputs, outputs, example, batched)
    }

    /// The same for a version whose requests must not share a run, whatever its first axes are.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn apart(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>, example: Option<serde_json::Value>) -> Result<Self> {
        Self::build(inputs, outputs, example, false)
    }

    fn build(
        mut inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        example: Option<serde_json::Value>,
        batched: bool,
    ) -> Result<Self> {
        for side in [&inputs, &outputs] {
            for (i, spec) in side.iter().enumerate() {
                if side[..i].iter().any(|other| other.name == spec.name) {
                    return Err(bad(format!("two tensors are called `{}`", spec.name)));
                }
                if spec.dims.len() > MAX_RANK {
                    return Err(bad(format!(
                        "`{}` has {} dimensions, at most {MAX_RANK} are served",
                        spec.name,
                        spec.dims.len()
                    )));
                }
            }
        }
        if outputs.is_empty() {
            return Err(bad("the model has no outputs".into()));
        }
        let mut fields = Vec::new();
        for (index, input) in inputs.iter_mut().enumerate() {
            name_fields(index, input, batched, &mut fields)?;
        }
        let mut by_name = HashMap::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            if by_name.insert(field.name.clone(), i).is_some() {
                return Err(bad(format!("two fields of a record are called `{}`", field.name)));
            }
        }
        Ok(Self { inputs, outputs, batched, example, fields, by_name })
    }

    /// The inputs, in the engine's order.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The outputs, in the engine's order.
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Whether the first axis of every tensor counts rows, so that requests can share a run.
    pub fn is_batched(&self) -> bool {
        self.batched
    }

    /// One record that the model's makers gave as an example.
    pub fn example(&self) -> Option<&serde_json::Value> {
        self.example.as_ref()
    }

    /// The named values that make one record.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The place of a field in [`Self::fields`].
    pub fn field(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The place of an input.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| &*spec.name == name)
    }

    /// The place of an output.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| &*spec.name == name)
    }

    /// What callers of `published` would lose with this signature, one sentence each; empty where nothing breaks.
    ///
    /// Ranges, units and descriptions may change; names, types, ranks and the order of columns and labels may not.
    /// New outputs and freer dimensions are welcome.
    pub fn breaks(&self, published: &Self) -> Vec<String> {
        let mut breaks = Vec::new();
        for new in &self.inputs {
            if published.input(&new.name).is_none() {
                breaks.push(format!("input `{}` is new, and callers do not send it", new.name));
            }
        }
        for old in &published.inputs {
            match self.input(&old.name).map(|i| &self.inputs[i]) {
                None => breaks.push(format!("input `{}` is gone", old.name)),
                Some(new) => compare(&mut breaks, "input", new, old),
            }
        }
        for old in &published.outputs {
            match self.output(&old.name).map(|i| &self.outputs[i]) {
                None => breaks.push(format!("output `{}` is gone", old.name)),
                Some(new) => compare(&mut breaks, "output", new, old),
            }
        }
        if published.batched && !self.batched {
            breaks.push("requests of several rows are no longer taken".into());
        }
        breaks
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::BadSignature, message)
}

/// Batched means: every tensor begins with a free dimension, and no two of them have different names.
fn is_batched<'a>(specs: impl Iterator<Item = &'a TensorSpec>) -> bool {
    let mut symbol: Option<&Arc<str>> = None;
    for spec in specs {
        match spec.dims.first() {
            Some(Dim::Free(None)) => {}
            Some(Dim::Free(Some(name))) => match symbol {
                Some(seen) if seen != name => return false,
                _ => symbol = Some(name),
            },
            _ => return false,
        }
    }
    true
}

fn name_fields(index: usize, input: &mut TensorSpec, batched: bool, fields: &mut Vec<Field>) -> Result<()> {
    let skip = usize::from(batched);
    if input.features.is_empty() {
        let mut dims = input.dims[skip..].to_vec();
        if batched && dims.iter().all(|dim| dim.fixed() == Some(1)) {
            dims.clear();
        }
        fields.push(Field {
            name: input.name.clone(),
            input: index,
            column: None,
            dtype: input.dtype,
            dims,
            about: input.about.clone(),
        });
        return Ok(());
    }
    let count = input.features.len();
    match input.dims[skip..] {
        [ref only] if only.admits(count) => input.dims[skip] = Dim::Fixed(count),
        _ => {
            return Err(bad(format!(
                "{count} features are named for input `{}`, whose shape {} has not one axis of {count} columns",
                input.name,
                Dims(&input.dims)
            )));
        }
    }
    fields.extend(input.features.iter().enumerate().map(|(column, feature)| Field {
        name: feature.name.clone(),
        input: index,
        column: Some(column),
        dtype: input.dtype,
        dims: Vec::new(),
        about: feature.about.clone(),
    }));
    Ok(())
}

fn compare(breaks: &mut Vec<String>, what: &str, new: &TensorSpec, old: &TensorSpec) {
    let name = &old.name;
    if new.dtype != old.dtype {
        breaks.push(format!("{what} `{name}` is {} and was {}", new.dtype, old.dtype));
    }
    let fits = |(new, old): (&Dim, &Dim)| match (new, old) {
        (Dim::Free(_), _) => true,
        (Dim::Fixed(new), Dim::Fixed(old)) => new == old,
        (Dim::Fixed(_), Dim::Free(_)) => false,
    };
    if new.dims.len() != old.dims.len() || !new.dims.iter().zip(&old.dims).all(fits) {
        breaks.push(format!("{what} `{name}` has shape {} and had {}", Dims(&new.dims), Dims(&old.dims)));
    }
    let names = |spec: &TensorSpec| spec.features.iter().map(|f| f.name.clone()).collect::<Vec<_>>();
    if !old.features.is_empty() && names(new) != names(old) {
        breaks.push(format!("the columns of {what} `{name}` have other names or another order"));
    }
    if !new.labels.starts_with(&old.labels) {
        breaks.push(format!("the labels of {what} `{name}` are other ones or in another order"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> Dim {
        Dim::Free(Some("N".into()))
    }

    fn spec(name: &str, dims: Vec<Dim>) -> TensorSpec {
        TensorSpec::new(name, DType::Fp32, dims)
    }

    fn signature(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> Signature {
        Signature::new(inputs, outputs, None).expect("a good signature")
    }

    fn feature(name: &str) -> Feature {
        Feature { name: name.into(), about: About::default() }
    }

    #[test]
    fn rows_are_batched_only_where_every_tensor_begins_with_the_same_free_dimension() {
        let out = || vec![spec("y", vec![free()])];
        assert!(signature(vec![spec("x", vec![free(), Dim::Fixed(3)])], out()).is_batched());
        assert!(signature(vec![spec("x", vec![Dim::Free(None), Dim::Fixed(3)])], out()).is_batched());
        assert!(!signature(vec![spec("x", vec![Dim::Fixed(1), Dim::Fixed(3)])], out()).is_batched());
        assert!(!signature(vec![spec("x", vec![Dim::Free(Some("M".into()))])], out()).is_batched());
        assert!(!signature(vec![spec("x", Vec::new())], out()).is_batched());
    }

    #[test]
    fn fields_are_columns_where_they_are_named_and_inputs_where_they_are_not() {
        let mut table = spec("X", vec![free(), Dim::Free(None)]);
        table.features = vec![feature("amount"), feature("hour")];
        let both = signature(vec![table, spec("z", vec![free(), Dim::Fixed(1)])], vec![spec("y", vec![free()])]);
        let names: Vec<_> = both.fields().iter().map(|f| (&*f.name, f.input, f.column, f.dims.len())).collect();
        assert_eq!(names, [("amount", 0, Some(0), 0), ("hour", 0, Some(1), 0), ("z", 1, None, 0)]);
        assert_eq!(both.inputs()[0].dims[1], Dim::Fixed(2));
        assert_eq!(both.field("hour"), Some(1));
    }

    #[test]
    fn features_that_do_not_fit_the_input_are_refused() {
        let mut table = spec("X", vec![free(), Dim::Fixed(3)]);
        table.features = vec![feature("amount"), feature("hour")];
        let error = Signature::new(vec![table], vec![spec("y", vec![free()])], None).expect_err("2 are not 3");
        assert!(error.message().contains("2 features"), "{error}");
    }

    #[test]
    fn a_signature_breaks_the_published_one_exactly_where_a_caller_would_notice() {
        let base = signature(vec![spec("x", vec![free(), Dim::Fixed(3)])], vec![spec("y", vec![free()])]);
        assert!(base.breaks(&base).is_empty());
        let wider =
            signature(vec![spec("x", vec![free(), Dim::Free(None)])], vec![spec("y", vec![free()]), spec("z", vec![free()])]);
        assert!(wider.breaks(&base).is_empty());
        assert_eq!(base.breaks(&wider).len(), 2, "{:?}", base.breaks(&wider));
        let renamed = signature(vec![spec("q", vec![free(), Dim::Fixed(3)])], vec![spec("y", vec![free()])]);
        assert_eq!(renamed.breaks(&base).len(), 2);
    }
}
