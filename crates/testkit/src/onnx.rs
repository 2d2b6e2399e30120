//! ONNX models written by hand at run time, so that a test can have exactly the model it is about.
//!
//! [`Model`] puts together any model; the functions after it are the ones that many tests need.

use sluicegate_core::{DType, Dim};

/// One attribute of a node.
#[derive(Clone, Copy, Debug)]
pub enum Attr<'a> {
    /// An integer.
    Int(&'a str, i64),
    /// A list of integers.
    Ints(&'a str, &'a [i64]),
    /// A list of texts.
    Texts(&'a str, &'a [&'a str]),
}

/// Names for the keys of the maps that a ZipMap node gives.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// `sequence(map(int64, float))`.
    Ints(&'a [i64]),
    /// `sequence(map(string, float))`.
    Texts(&'a [&'a str]),
}

/// A model being put together. Names that do not fit together are left to the engine to refuse: some tests want that.
#[derive(Clone, Debug)]
pub struct Model {
    opset: i64,
    domains: Vec<String>,
    graph: Vec<u8>,
}

impl Model {
    /// An empty model of this version of the standard operators; 17 is one that every engine knows.
    pub fn new(opset: i64) -> Self {
        let mut graph = Vec::new();
        text(&mut graph, 2, "graph");
        Self { opset, domains: Vec::new(), graph }
    }

    /// A tensor that callers send.
    #[must_use]
    pub fn input(mut self, name: &str, dtype: DType, dims: &[Dim]) -> Self {
        message(&mut self.graph, 11, &value_info(name, &tensor_type(dtype, Some(dims))));
        self
    }

    /// A tensor that callers send, of which the model does not say how many dimensions it has.
    #[must_use]
    pub fn input_without_shape(mut self, name: &str, dtype: DType) -> Self {
        message(&mut self.graph, 11, &value_info(name, &tensor_type(dtype, None)));
        self
    }

    /// A tensor that callers get.
    #[must_use]
    pub fn output(mut self, name: &str, dtype: DType, dims: &[Dim]) -> Self {
        message(&mut self.graph, 12, &value_info(name, &tensor_type(dtype, Some(dims))));
        self
    }

    /// A sequence of tensors that callers get.
    #[must_use]
    pub fn output_sequence(mut self, name: &str, dtype: DType) -> Self {
        message(&mut self.graph, 12, &value_info(name, &sequence_type(&tensor_type(dtype, Some(&[])))));
        self
    }

    /// A sequence of maps that callers get, as ZipMap gives it.
    #[must_use]
    pub fn output_maps(mut self, name: &str, labels: Labels<'_>) -> Self {
        let key = if matches!(labels, Labels::Ints(_)) { DType::Int64 } else { DType::Bytes };
        let mut map = Vec::new();
        number(&mut map, 1, element_type(key));
        message(&mut map, 2, &tensor_type(DType::Fp32, Some(&[])));
        let mut of_map = Vec::new();
        message(&mut of_map, 5, &map);
        message(&mut self.graph, 12, &value_info(name, &sequence_type(&of_map)));
        self
    }

    /// A node of the standard operators.
    #[must_use]
    pub fn node(self, op: &str, inputs: &[&str], outputs: &[&str], attrs: &[Attr<'_>]) -> Self {
        self.node_of("", op, inputs, outputs, attrs)
    }

    /// A node of another domain, which is imported in its version 1.
    #[must_use]
    pub fn node_of(mut self, domain: &str, op: &str, inputs: &[&str], outputs: &[&str], attrs: &[Attr<'_>]) -> Self {
        if !domain.is_empty() && !self.domains.iter().any(|known| known == domain) {
            self.domains.push(domain.to_owned());
        }
        let mut node = Vec::new();
        inputs.iter().for_each(|name| text(&mut node, 1, name));
        outputs.iter().for_each(|name| text(&mut node, 2, name));
        text(&mut node, 3, &format!("{op} to {}", outputs.join(" ")));
        text(&mut node, 4, op);
        attrs.iter().for_each(|attr| message(&mut node, 5, &attribute(attr)));
        text(&mut node, 7, domain);
        message(&mut self.graph, 1, &node);
        self
    }

    /// A constant; `elements` are its little-endian bytes.
    #[must_use]
    pub fn constant(mut self, name: &str, dtype: DType, sizes: &[usize], elements: &[u8]) -> Self {
        let mut tensor = tensor_head(name, dtype, sizes);
        message(&mut tensor, 9, elements);
        message(&mut self.graph, 5, &tensor);
        self
    }

    /// A constant whose bytes are all of the file `location`, beside the model's.
    #[must_use]
    pub fn external_constant(mut self, name: &str, dtype: DType, sizes: &[usize], location: &str) -> Self {
        let mut tensor = tensor_head(name, dtype, sizes);
        let mut entry = Vec::new();
        text(&mut entry, 1, "location");
        text(&mut entry, 2, location);
        message(&mut tensor, 13, &entry);
        number(&mut tensor, 14, 1);
        message(&mut self.graph, 5, &tensor);
        self
    }

    /// The bytes of the model's file.
    pub fn build(self) -> Vec<u8> {
        let mut model = Vec::with_capacity(self.graph.len() + 64);
        number(&mut model, 1, 8);
        text(&mut model, 2, "sluicegate-testkit");
        message(&mut model, 7, &self.graph);
        message(&mut model, 8, &opset("", self.opset));
        self.domains.iter().for_each(|domain| message(&mut model, 8, &opset(domain, 1)));
        model
    }
}

/// The free dimension `N`, which counts rows.
pub fn rows() -> Dim {
    Dim::Free(Some("N".into()))
}

/// `y = x`.
pub fn identity(dtype: DType, dims: &[Dim]) -> Vec<u8> {
    Model::new(17).input("x", dtype, dims).output("y", dtype, dims).node("Identity", &["x"], &["y"], &[]).build()
}

/// `y = x + addend` on FP32 rows of `width` columns.
pub fn add_constant(addend: f32, width: usize) -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(width)];
    Model::new(17)
        .input("x", DType::Fp32, &dims)
        .output("y", DType::Fp32, &dims)
        .constant("addend", DType::Fp32, &[], &addend.to_le_bytes())
        .node("Add", &["x", "addend"], &["y"], &[])
        .build()
}

/// Two outputs on FP32 rows of `width` columns: `more = x + 1` and `twice = x + x`.
pub fn two_outputs(width: usize) -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(width)];
    Model::new(17)
        .input("x", DType::Fp32, &dims)
        .output("more", DType::Fp32, &dims)
        .output("twice", DType::Fp32, &dims)
        .constant("one", DType::Fp32, &[], &1f32.to_le_bytes())
        .node("Add", &["x", "one"], &["more"], &[])
        .node("Add", &["x", "x"], &["twice"], &[])
        .build()
}

/// A model as slow as one wants: `steps` products of each row with one constant of `width` by `width`.
/// Every column of `y` is the mean of the row.
pub fn slow(width: usize, steps: usize) -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(width)];
    let mean = (1.0 / width as f32).to_le_bytes().repeat(width * width);
    let mut model = Model::new(17).input("x", DType::Fp32, &dims).output("y", DType::Fp32, &dims).constant(
        "mean",
        DType::Fp32,
        &[width, width],
        &mean,
    );
    let mut from = "x".to_owned();
    for step in 1..=steps {
        let to = if step == steps { "y".to_owned() } else { format!("step{step}") };
        model = model.node("MatMul", &[&from, "mean"], &[&to], &[]);
        from = to;
    }
    model.build()
}

/// A model with an operator that no engine has: `Frobnicate` of `example.unknown`.
pub fn unknown_operator() -> Vec<u8> {
    let dims = [rows(), Dim::Fixed(2)];
    Model::new(17)
        .input("x", DType::Fp32, &dims)
        .output("y", DType::Fp32, &dims)
        .node_of("example.unknown", "Frobnicate", &["x"], &["y"], &[])
        .build()
}

/// `value = table[index]`: runs for an INT64 `index` of 0 to 2, fails in the run for any other, which its signature allows.
pub fn fails_on_some() -> Vec<u8> {
    let table: Vec<u8> = [10f32, 20.0, 30.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    gather(3, &table)
}

/// A model with a constant of `mebibytes`: `value = table[index]`, where `table[i]` is 0.
pub fn big(mebibytes: usize) -> Vec<u8> {
    gather(mebibytes << 18, &vec![0; mebibytes << 20])
}

/// `y = op(x, by)` of rows of one number each.
pub fn of_two(op: &str, dtype: DType) -> Vec<u8> {
    let model = Model::new(17).input("x", dtype, &[rows()]).input("by", dtype, &[rows()]).output("y", dtype, &[rows()]);
    model.node(op, &["x", "by"], &["y"], &[]).build()
}

/// `y = x` as a ZipMap gives it: one map from label to number a row, in place of a tensor.
pub fn zipmap(labels: Labels<'_>) -> Vec<u8> {
    let (width, attr) = match labels {
        Labels::Ints(labels) => (labels.len(), Attr::Ints("classlabels_int64s", labels)),
        Labels::Texts(labels) => (labels.len(), Attr::Texts("classlabels_strings", labels)),
    };
    Model::new(17)
        .input("x", DType::Fp32, &[rows(), Dim::Fixed(width)])
        .output_maps("y", labels)
        .node("Identity", &["x"], &["scores"], &[])
        .node_of("ai.onnx.ml", "ZipMap", &["scores"], &["y"], &[attr])
        .build()
}

fn gather(length: usize, table: &[u8]) -> Vec<u8> {
    Model::new(17)
        .input("index", DType::Int64, &[rows()])
        .output("value", DType::Fp32, &[rows()])
        .constant("table", DType::Fp32, &[length], table)
        .node("Gather", &["table", "index"], &["value"], &[])
        .build()
}

fn opset(domain: &str, version: i64) -> Vec<u8> {
    let mut opset = Vec::new();
    text(&mut opset, 1, domain);
    number(&mut opset, 2, version);
    opset
}

fn value_info(name: &str, of_type: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    text(&mut info, 1, name);
    message(&mut info, 2, of_type);
    info
}

fn tensor_type(dtype: DType, dims: Option<&[Dim]>) -> Vec<u8> {
    let mut tensor = Vec::new();
    number(&mut tensor, 1, element_type(dtype));
    if let Some(dims) = dims {
        let mut shape = Vec::new();
        for dim in dims {
            let mut one = Vec::new();
            match dim {
                Dim::Fixed(size) => number(&mut one, 1, *size as i64),
                Dim::Free(Some(name)) => text(&mut one, 2, name),
                Dim::Free(None) => {}
            }
            message(&mut shape, 1, &one);
        }
        message(&mut tensor, 2, &shape);
    }
    let mut of_type = Vec::new();
    message(&mut of_type, 1, &tensor);
    of_type
}

fn sequence_type(of: &[u8]) -> Vec<u8> {
    let mut sequence = Vec::new();
    message(&mut sequence, 1, of);
    let mut of_type = Vec::new();
    message(&mut of_type, 4, &sequence);
    of_type
}

fn tensor_head(name: &str, dtype: DType, sizes: &[usize]) -> Vec<u8> {
    let mut tensor = Vec::new();
    sizes.iter().for_each(|&size| number(&mut tensor, 1, size as i64));
    number(&mut tensor, 2, element_type(dtype));
    text(&mut tensor, 8, name);
    tensor
}

fn attribute(attr: &Attr<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let (name, kind) = match *attr {
        Attr::Int(name, _) => (name, 2),
        Attr::Ints(name, _) => (name, 7),
        Attr::Texts(name, _) => (name, 8),
    };
    text(&mut out, 1, name);
    match *attr {
        Attr::Int(_, value) => number(&mut out, 3, value),
        Attr::Ints(_, values) => values.iter().for_each(|&value| number(&mut out, 8, value)),
        Attr::Texts(_, values) => values.iter().for_each(|value| text(&mut out, 9, value)),
    }
    number(&mut out, 20, kind);
    out
}

/// The number that ONNX has for an element type.
fn element_type(dtype: DType) -> i64 {
    match dtype {
        DType::Fp32 => 1,
        DType::Uint8 => 2,
        DType::Int8 => 3,
        DType::Uint16 => 4,
        DType::Int16 => 5,
        DType::Int32 => 6,
        DType::Int64 => 7,
        DType::Bytes => 8,
        DType::Bool => 9,
        DType::Fp16 => 10,
        DType::Fp64 => 11,
        DType::Uint32 => 12,
        DType::Uint64 => 13,
        DType::Bf16 => 16,
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    varint(out, field << 3);
    varint(out, value as u64);
}

fn message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn text(out: &mut Vec<u8>, field: u64, text: &str) {
    message(out, field, text.as_bytes());
}
