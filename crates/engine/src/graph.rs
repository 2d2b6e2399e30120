//! What an ONNX file says of itself: read without its weights, and before any engine sees it.
//!
//! The numbers in the matches are those of the fields in `onnx.proto`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use sluicegate_core::{Code, DType, Error, Result};

use crate::wire::{Broken, Field, fields, put_bytes, put_number};

/// Deepest nesting of graphs in graphs (`If`, `Loop`) that is looked into.
const MAX_DEPTH: usize = 32;

/// The head of a model.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// What the graph takes, constants that may be overridden included.
    pub(crate) inputs: Vec<Declared>,
    /// What it gives.
    pub(crate) outputs: Vec<Declared>,
    /// Every operator used, in graphs within it too, as (domain, name); the standard domain is empty.
    pub(crate) operators: BTreeSet<(String, String)>,
    constants: BTreeSet<String>,
    zipmaps: Vec<ZipMap>,
    standard_opset: bool,
    /// Whether a tree ensemble tells two classes apart by the score of one.
    pub(crate) one_score_for_two: bool,
}

/// An input or output as the file declares it.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) what: What,
    /// Its sizes, where it is a tensor; those that callers choose have no number.
    pub(crate) dims: Vec<Option<u64>>,
}

/// The type of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A tensor of an element type, by ONNX's number for it.
    Tensor { element: i64, shaped: bool },
    /// Anything else, by its name.
    Other(&'static str),
}

/// A node that turns rows of numbers into maps from label to number.
#[derive(Debug, Default)]
struct ZipMap {
    from: String,
    to: String,
    labels: Vec<String>,
}

impl Graph {
    /// Reads the head of a model.
    ///
    /// # Errors
    /// [`Code::LoadFailed`] where the bytes are not a whole model.
    pub(crate) fn read(model: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Err(Error::new(Code::LoadFailed, why));
        if model.is_empty() {
            return refuse("the file is empty");
        }
        let mut graph = Self::default();
        match graph.model(model) {
            Ok(true) => Ok(graph),
            Ok(false) => refuse("the file is no ONNX model: it has no graph"),
            Err(Broken) => refuse("the file is no ONNX model, or is cut short"),
        }
    }

    /// The inputs that callers send.
    pub(crate) fn required_inputs(&self) -> impl Iterator<Item = &Declared> {
        self.inputs.iter().filter(|input| !self.constants.contains(&input.name))
    }

    /// Whether callers choose the size of a dimension other than the first of any input.
    pub(crate) fn has_free_inner_dimensions(&self) -> bool {
        self.required_inputs().any(|input| input.dims.iter().skip(1).any(Option::is_none))
    }

    /// The labels of an output that was a ZipMap's.
    pub(crate) fn zipped_labels(&self, output: &str) -> Option<&[String]> {
        self.zipmaps.iter().find(|zipmap| zipmap.to == output).map(|zipmap| &*zipmap.labels)
    }

    /// Refuses what no engine can serve as tensors.
    ///
    /// # Errors
    /// [`Code::LoadFailed`] naming the input or output and its type.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(Code::LoadFailed, message));
        for input in self.required_inputs() {
            let name = &input.name;
            match input.what {
                What::Other(kind) => return refuse(format!("input `{name}` is {kind}: only tensors are served")),
                What::Tensor { shaped: false, .. } => {
                    return refuse(format!("input `{name}` has no shape: export the model with the rank of its inputs"));
                }
                What::Tensor { element, .. } if dtype(element).is_none() => {
                    return refuse(format!("input `{name}` has elements of type {}, which is not served", element_name(element)));
                }
                What::Tensor { .. } => {}
            }
        }
        for output in &self.outputs {
            let name = &output.name;
            match output.what {
                What::Other(_) if self.zipped_labels(name).is_some() => {}
                What::Other(kind) => {
                    return refuse(format!(
                        "output `{name}` is {kind}: only tensors, and the maps that a ZipMap gives, are served"
                    ));
                }
                What::Tensor { element, .. } if element != 0 && dtype(element).is_none() => {
                    return refuse(format!(
                        "output `{name}` has elements of type {}, which is not served",
                        element_name(element)
                    ));
                }
                What::Tensor { .. } => {}
            }
        }
        Ok(())
    }

    /// The same model without the ZipMaps that give outputs: a ZipMap copies numbers, row by row, out of the very tensor that is
    /// served in their place. Everything else in the file stays as it is.
    pub(crate) fn without_zipmaps<'a>(&self, model: &'a [u8]) -> Cow<'a, [u8]> {
        if self.zipmaps.is_empty() {
            return Cow::Borrowed(model);
        }
        let mut out = Vec::with_capacity(model.len() + 64);
        for field in fields(model).flatten() {
            match (field.number, field.bytes()) {
                (7, Ok(graph)) => put_bytes(&mut out, 7, &self.graph_without_zipmaps(graph)),
                _ => out.extend_from_slice(field.raw),
            }
        }
        if !self.standard_opset {
            let mut opset = Vec::new();
            put_number(&mut opset, 2, 13);
            put_bytes(&mut out, 8, &opset);
        }
        Cow::Owned(out)
    }

    fn graph_without_zipmaps(&self, graph: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(graph.len() + 64);
        for field in fields(graph).flatten() {
            let replacement = match (field.number, field.bytes()) {
                (1, Ok(node)) => self.copying_node(node),
                (12, Ok(info)) => self.tensor_info(info),
                _ => None,
            };
            match replacement {
                Some(bytes) => put_bytes(&mut out, field.number, &bytes),
                None => out.extend_from_slice(field.raw),
            }
        }
        out
    }

    fn copying_node(&self, node: &[u8]) -> Option<Vec<u8>> {
        let node = Node::read(node).ok()?;
        let zipmap = self.zipmaps.iter().find(|zipmap| node.is_zipmap() && node.outputs == [&*zipmap.to])?;
        let mut out = Vec::new();
        put_bytes(&mut out, 1, zipmap.from.as_bytes());
        put_bytes(&mut out, 2, zipmap.to.as_bytes());
        put_bytes(&mut out, 3, node.name.as_bytes());
        put_bytes(&mut out, 4, b"Identity");
        Some(out)
    }

    fn tensor_info(&self, info: &[u8]) -> Option<Vec<u8>> {
        let name = declared(info).ok()?.name;
        let labels = self.zipped_labels(&name)?;
        let mut columns = Vec::new();
        put_number(&mut columns, 1, labels.len() as u64);
        let (mut shape, mut tensor, mut of_type, mut out) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut shape, 1, &[]);
        put_bytes(&mut shape, 1, &columns);
        put_number(&mut tensor, 1, 1);
        put_bytes(&mut tensor, 2, &shape);
        put_bytes(&mut of_type, 1, &tensor);
        put_bytes(&mut out, 1, name.as_bytes());
        put_bytes(&mut out, 2, &of_type);
        Some(out)
    }

    fn model(&mut self, model: &[u8]) -> Result<bool, Broken> {
        let mut found = false;
        for field in fields(model) {
            let field = field?;
            match field.number {
                7 => {
                    found = true;
                    self.graph(field.bytes()?, 0)?;
                }
                8 => self.standard_opset |= is_standard(text_of(field.bytes()?, 1)?),
                _ => {}
            }
        }
        self.zipmaps.retain(|zipmap| self.outputs.iter().any(|output| output.name == zipmap.to && output.what != FLOATS));
        Ok(found)
    }

    fn graph(&mut self, graph: &[u8], depth: usize) -> Result<(), Broken> {
        if depth > MAX_DEPTH {
            return Err(Broken);
        }
        for field in fields(graph) {
            let field = field?;
            match (field.number, depth) {
                (1, _) => self.node(&Node::read(field.bytes()?)?, depth)?,
                (5, 0) => {
                    self.constants.insert(text_of(field.bytes()?, 8)?.to_owned());
                }
                (11, 0) => self.inputs.push(declared(field.bytes()?)?),
                (12, 0) => self.outputs.push(declared(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &Node<'_>, depth: usize) -> Result<(), Broken> {
        let domain = if is_standard(node.domain) { "" } else { node.domain };
        self.operators.insert((domain.to_owned(), node.operator.to_owned()));
        if node.operator == "TreeEnsembleClassifier" {
            self.one_score_for_two |= node.gives_one_score_for_two()?;
        }
        let mut labels = Vec::new();
        for attribute in &node.attributes {
            for field in fields(attribute) {
                let field = field?;
                match field.number {
                    6 | 11 => self.graph(field.bytes()?, depth + 1)?,
                    8 if depth == 0 && node.is_zipmap() => {
                        let mut numbers = Vec::new();
                        field.numbers(&mut numbers)?;
                        labels.extend(numbers.iter().map(i64::to_string));
                    }
                    9 if depth == 0 && node.is_zipmap() => labels.push(field.text()?.to_owned()),
                    _ => {}
                }
            }
        }
        if let (0, true, [from], [to]) = (depth, node.is_zipmap(), &*node.inputs, &*node.outputs) {
            self.zipmaps.push(ZipMap { from: (*from).to_owned(), to: (*to).to_owned(), labels });
        }
        Ok(())
    }
}

const FLOATS: What = What::Tensor { element: 1, shaped: true };

#[derive(Default)]
struct Node<'a> {
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    name: &'a str,
    operator: &'a str,
    domain: &'a str,
    attributes: Vec<&'a [u8]>,
}

impl<'a> Node<'a> {
    fn read(node: &'a [u8]) -> Result<Self, Broken> {
        let mut read = Self::default();
        for field in fields(node) {
            let field = field?;
            match field.number {
                1 => read.inputs.push(field.text()?),
                2 => read.outputs.push(field.text()?),
                3 => read.name = field.text()?,
                4 => read.operator = field.text()?,
                5 => read.attributes.push(field.bytes()?),
                7 => read.domain = field.text()?,
                _ => {}
            }
        }
        Ok(read)
    }

    /// As exporters write binary gradient boosting: two labels, and every leaf votes for the same class.
    fn gives_one_score_for_two(&self) -> Result<bool, Broken> {
        let (mut labels, mut voted) = (0, Vec::new());
        for attribute in &self.attributes {
            let (integers, texts) = (8, 9);
            match text_of(attribute, 1)? {
                "class_ids" => fields(attribute)
                    .flatten()
                    .filter(|field| field.number == integers)
                    .try_for_each(|field| field.numbers(&mut voted))?,
                "classlabels_int64s" => {
                    let mut numbers = Vec::new();
                    fields(attribute)
                        .flatten()
                        .filter(|field| field.number == integers)
                        .try_for_each(|field| field.numbers(&mut numbers))?;
                    labels += numbers.len();
                }
                "classlabels_strings" => labels += fields(attribute).flatten().filter(|field| field.number == texts).count(),
                _ => {}
            }
        }
        Ok(labels == 2 && voted.windows(2).all(|pair| pair[0] == pair[1]))
    }

    fn is_zipmap(&self) -> bool {
        self.operator == "ZipMap" && self.domain == "ai.onnx.ml"
    }
}

fn is_standard(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn find(message: &[u8], number: u64) -> Result<Option<Field<'_>>, Broken> {
    let mut found = None;
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            found = Some(field);
        }
    }
    Ok(found)
}

fn text_of(message: &[u8], number: u64) -> Result<&str, Broken> {
    find(message, number)?.map_or(Ok(""), |field| field.text())
}

fn declared(info: &[u8]) -> Result<Declared, Broken> {
    let name = text_of(info, 1)?.to_owned();
    let (mut what, mut dims) = (What::Other("of no declared type"), Vec::new());
    let of_type = find(info, 2)?.map(|field| field.bytes()).transpose()?.unwrap_or_default();
    for field in fields(of_type) {
        let field = field?;
        what = match field.number {
            1 => {
                let tensor = field.bytes()?;
                let element = find(tensor, 1)?.map_or(Ok(0), |field| field.number_value())?;
                let shape = find(tensor, 2)?.map(|field| field.bytes()).transpose()?;
                dims = shape.map_or(Ok(Vec::new()), sizes)?;
                What::Tensor { element, shaped: shape.is_some() }
            }
            4 => What::Other("a sequence"),
            5 => What::Other("a map"),
            8 => What::Other("a sparse tensor"),
            9 => What::Other("an optional value"),
            7 => What::Other("of an opaque type"),
            _ => what,
        };
    }
    Ok(Declared { name, what, dims })
}

fn sizes(shape: &[u8]) -> Result<Vec<Option<u64>>, Broken> {
    let size = |dim: Result<Field<'_>, Broken>| {
        let number = find(dim?.bytes()?, 1)?.map(|field| field.number_value()).transpose()?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    };
    fields(shape).map(size).collect()
}

/// The name of a free dimension; exporters make up `unk__7` and `?` where they have none.
pub(crate) fn dim_name(symbol: &str) -> Option<Arc<str>> {
    let made_up = symbol.is_empty() || symbol == "?" || symbol.starts_with("unk__");
    (!made_up).then(|| symbol.into())
}

/// The served type of an ONNX element type, where it is served.
pub(crate) fn dtype(element: i64) -> Option<DType> {
    Some(match element {
        1 => DType::Fp32,
        2 => DType::Uint8,
        3 => DType::Int8,
        4 => DType::Uint16,
        5 => DType::Int16,
        6 => DType::Int32,
        7 => DType::Int64,
        8 => DType::Bytes,
        9 => DType::Bool,
        10 => DType::Fp16,
        11 => DType::Fp64,
        12 => DType::Uint32,
        13 => DType::Uint64,
        16 => DType::Bf16,
        _ => return None,
    })
}

/// What ONNX calls an element type.
fn element_name(element: i64) -> Cow<'static, str> {
    Cow::Borrowed(match element {
        14 => "complex64",
        15 => "complex128",
        17 => "float8e4m3fn",
        18 => "float8e4m3fnuz",
        19 => "float8e5m2",
        20 => "float8e5m2fnuz",
        21 => "uint4",
        22 => "int4",
        23 => "float4e2m1",
        _ => return Cow::Owned(format!("number {element}")),
    })
}

#[cfg(test)]
mod tests {
    use sluicegate_testkit::onnx::{self, Labels, Model, rows};

    use super::*;

    #[test]
    fn a_file_that_is_not_a_whole_model_is_refused_wherever_it_is_cut() {
        let model = onnx::add_constant(1.0, 3);
        assert!(Graph::read(&model).is_ok());
        for length in 0..model.len() {
            match Graph::read(&model[..length]) {
                Err(error) => assert_eq!(error.code(), Code::LoadFailed),
                Ok(graph) => assert_eq!(graph.inputs.len(), 1, "cut to {length}, between two fields of the outermost message"),
            }
        }
        let error = Graph::read(b"<html>not a model</html>").expect_err("no protobuf");
        assert!(error.message().contains("no ONNX model"), "{error}");
        assert!(Graph::read(b"").expect_err("empty").message().contains("empty"));
    }

    #[test]
    fn zipmaps_become_the_tensor_they_copy() {
        for labels in [Labels::Ints(&[3, -7]), Labels::Texts(&["3", "-7"])] {
            let model = onnx::zipmap(labels);
            let graph = Graph::read(&model).expect("a model");
            assert_eq!(graph.zipped_labels("y").expect("a zipmap"), ["3", "-7"]);
            graph.check().expect("served");
            let rewritten = Graph::read(&graph.without_zipmaps(&model)).expect("a model");
            assert_eq!(rewritten.outputs[0].what, FLOATS);
            assert_eq!(rewritten.outputs[0].name, "y");
            assert!(rewritten.operators.iter().all(|(_, name)| name == "Identity"));
        }
    }

    #[test]
    fn a_model_without_zipmap_is_not_copied() {
        let model = onnx::add_constant(1.0, 3);
        let graph = Graph::read(&model).expect("a model");
        assert!(matches!(graph.without_zipmaps(&model), Cow::Borrowed(_)));
    }

    #[test]
    fn what_cannot_be_served_as_tensors_is_refused_by_name() {
        let check =
            |model: Model| Graph::read(&model.build()).and_then(|graph| graph.check()).expect_err("not served").to_string();
        let sequence = Model::new(17)
            .input("x", DType::Fp32, &[rows()])
            .node("SequenceConstruct", &["x"], &["parts"], &[])
            .output_sequence("parts", DType::Fp32);
        assert!(check(sequence).contains("output `parts` is a sequence"));
        let shapeless = Model::new(17).input_without_shape("x", DType::Fp32).output("y", DType::Fp32, &[rows()]);
        assert!(check(shapeless.node("Identity", &["x"], &["y"], &[])).contains("input `x` has no shape"));
    }

    #[test]
    fn a_constant_that_is_also_an_input_is_not_asked_of_callers() {
        let model = Model::new(17)
            .input("x", DType::Fp32, &[rows()])
            .input("c", DType::Fp32, &[])
            .constant("c", DType::Fp32, &[], &[0; 4])
            .output("y", DType::Fp32, &[rows()])
            .node("Add", &["x", "c"], &["y"], &[])
            .build();
        let graph = Graph::read(&model).expect("a model");
        assert_eq!(graph.required_inputs().map(|input| &*input.name).collect::<Vec<_>>(), ["x"]);
    }
}
