//! Rows to warm a version up with: its example where it has one, else values from the middle of what it allows.

use bytes::Bytes;
use serde_json::Value;
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::{About, Field};
use sluicegate_core::{Code, DType, Error, Result, Shape, Signature, Tensor};

/// Inputs of `rows` equal rows, in the order of the signature. Where the model is not batched, `rows` does not count.
///
/// # Errors
/// [`Code::BadSignature`] where the example does not fit the signature.
pub fn inputs(signature: &Signature, rows: usize) -> Result<Vec<Tensor>> {
    let record = signature.example().map(|example| check(signature, example)).transpose()?;
    let of_input = |index: usize| {
        let spec = &signature.inputs()[index];
        let fields = signature.fields().iter().filter(|field| field.input == index);
        let mut row = Vec::new();
        for field in fields {
            match record.and_then(|record| record.get(&*field.name)) {
                Some(value) => flatten(field, value, &mut row)?,
                None => row.extend(std::iter::repeat_n(middle(field), size(&field.dims))),
            }
        }
        let skip = usize::from(signature.is_batched());
        let mut sizes = vec![rows; skip];
        sizes.extend(dims_of(&spec.dims[skip..], record.and_then(|record| record.get(&*spec.name))));
        tensor(spec.dtype, Shape::new(&sizes), &row, if skip == 1 { rows } else { 1 })
    };
    (0..signature.inputs().len()).map(of_input).collect()
}

fn check<'a>(signature: &Signature, example: &'a Value) -> Result<&'a serde_json::Map<String, Value>> {
    let bad = |message: String| Error::new(Code::BadSignature, format!("signature.example: {message}"));
    let record = example.as_object().ok_or_else(|| bad("expected one record, an object of fields".into()))?;
    if let Some(unknown) = record.keys().find(|key| signature.field(key).is_none()) {
        return Err(bad(format!("the signature has no field `{unknown}`")));
    }
    for field in signature.fields() {
        let value = record.get(&*field.name).ok_or_else(|| bad(format!("field `{}` is missing", field.name)))?;
        flatten(field, value, &mut Vec::new())?;
    }
    Ok(record)
}

fn flatten<'a>(field: &Field, value: &'a Value, row: &mut Vec<Sample<'a>>) -> Result<()> {
    let bad = |why: String| Error::new(Code::BadSignature, format!("signature.example: field `{}`: {why}", field.name));
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(field, item, row)),
        Value::Number(number) if field.dtype != DType::Bytes => {
            let number = number.as_f64().unwrap_or_default();
            let About { min, max, .. } = field.about;
            if min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) {
                return Err(bad(format!("{number} is outside of its own range")));
            }
            row.push(Sample::Number(number));
            Ok(())
        }
        Value::Bool(bit) if field.dtype == DType::Bool => {
            row.push(Sample::Number(f64::from(u8::from(*bit))));
            Ok(())
        }
        Value::String(text) if field.dtype == DType::Bytes => {
            if !field.about.categories.is_empty() && !field.about.categories.contains(text) {
                return Err(bad(format!("`{text}` is not one of its own categories")));
            }
            row.push(Sample::Text(text));
            Ok(())
        }
        other => Err(bad(format!("{other} is no {}", field.dtype))),
    }
}

#[derive(Clone, Copy)]
enum Sample<'a> {
    Number(f64),
    Text(&'a str),
}

fn middle(field: &Field) -> Sample<'_> {
    if field.dtype == DType::Bytes {
        return Sample::Text(field.about.categories.first().map_or("", String::as_str));
    }
    let number = match (field.about.min, field.about.max) {
        (Some(min), Some(max)) => f64::midpoint(min, max),
        (Some(edge), None) | (None, Some(edge)) => edge,
        (None, None) => 0.0,
    };
    Sample::Number(if field.dtype.is_float() { number } else { number.floor() })
}

fn size(dims: &[Dim]) -> usize {
    dims.iter().map(|dim| dim.fixed().unwrap_or(1)).product()
}

/// Free dimensions take the example's size where there is one, else 1.
fn dims_of(dims: &[Dim], example: Option<&Value>) -> Vec<usize> {
    let mut level = example;
    let mut sizes = Vec::with_capacity(dims.len());
    for dim in dims {
        let items = level.and_then(Value::as_array);
        sizes.push(dim.fixed().unwrap_or_else(|| items.map_or(1, Vec::len)));
        level = items.and_then(|items| items.first());
    }
    sizes
}

fn tensor(dtype: DType, shape: Shape, row: &[Sample<'_>], rows: usize) -> Result<Tensor> {
    let fits = |error: Error| Error::new(Code::BadSignature, format!("signature.example: {error}"));
    if dtype == DType::Bytes {
        let text = |sample: &Sample<'_>| match sample {
            Sample::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Sample::Number(_) => Bytes::new(),
        };
        let words: Vec<Bytes> = row.iter().map(text).collect();
        return Tensor::text(shape, std::iter::repeat_n(words, rows).flatten().collect()).map_err(fits);
    }
    let mut bytes = Vec::new();
    for sample in row {
        if let Sample::Number(number) = sample {
            dtype.push(*number, &mut bytes);
        }
    }
    Tensor::fixed(dtype, shape, bytes.repeat(rows).into()).map_err(fits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluicegate_core::signature::TensorSpec;

    use super::*;

    fn signature(example: Option<Value>) -> Signature {
        let free = || Dim::Free(None);
        let mut word = TensorSpec::new("word", DType::Bytes, vec![free(), Dim::Fixed(1)]);
        word.about.categories = vec!["a".into(), "b".into()];
        let image = TensorSpec::new("image", DType::Fp32, vec![free(), Dim::Fixed(2), free()]);
        Signature::new(vec![word, image], vec![TensorSpec::new("y", DType::Fp32, vec![free()])], example)
            .expect("a good signature")
    }

    #[test]
    fn an_example_becomes_rows_of_the_right_shapes() {
        let signature = signature(Some(json!({"word": "b", "image": [[1, 2, 3], [4, 5, 6]]})));
        let inputs = inputs(&signature, 2).expect("fits");
        assert_eq!(inputs[0].strings().expect("text"), [Bytes::from("b"), Bytes::from("b")]);
        assert_eq!(inputs[1].shape(), &Shape::new(&[2, 2, 3]));
    }

    #[test]
    fn without_an_example_the_ranges_give_one() {
        let inputs = inputs(&signature(None), 1).expect("fits");
        assert_eq!(inputs[0].strings().expect("text"), [Bytes::from("a")]);
        assert_eq!(inputs[1].shape(), &Shape::new(&[1, 2, 1]));
    }

    #[test]
    fn an_example_that_does_not_fit_is_told() {
        for (example, part) in [
            (json!({"word": "c", "image": [[1], [2]]}), "categories"),
            (json!({"word": "a"}), "missing"),
            (json!({"word": "a", "image": [[1], [2]], "q": 1}), "no field `q`"),
            (json!({"word": "a", "image": [[1, 2], [3]]}), "takes 16 bytes"),
            (json!([]), "one record"),
        ] {
            let error = inputs(&signature(Some(example)), 1).expect_err(part);
            assert!(error.message().contains(part), "{error}");
        }
    }
}
