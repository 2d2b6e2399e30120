//! Plain values into the inputs of a signature, row by row or column by column: what the formats of other servers share.
//!
//! A key is the name of an input, whose value has as many dimensions as the input without its rows, or that of a column.
//! Whether shapes fit the signature is told by who validates requests; here they only have to agree with each other.

use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer};
use sluicegate_codec::elements::{Elements, Scalar};
use sluicegate_core::shape::Dim;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Shape, Signature, Tensor};

use crate::nest::{Cell, Nest, Sizes, misfit, special};

/// What a request's values made.
pub type Inputs = Vec<(Arc<str>, Tensor)>;

/// Most elements of a row that may come one by one, under names or in an order.
const MAX_CELLS: usize = 65_536;

/// Where a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// It is a whole row of this input.
    Input(usize),
    /// It is one element of a row.
    Cell { input: usize, offset: usize },
}

/// Rows of inputs under construction.
pub(crate) struct Rows<'a> {
    signature: &'a Signature,
    inputs: Vec<Filling>,
    rows: usize,
    /// Which cells the row has, those of all inputs one after the other.
    cells: Vec<bool>,
}

struct Filling {
    elements: Elements,
    sizes: Sizes,
    /// The elements of a row, where they may come one by one.
    width: Option<usize>,
    /// The place of the first of them among all cells.
    first: usize,
    seen: Seen,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    Cells(usize),
    Whole,
}

/// The dimensions of one row.
fn inner<'a>(signature: &Signature, spec: &'a TensorSpec) -> &'a [Dim] {
    // A tensor that has no rows is given row by row as well: its first axis is theirs.
    let skip = usize::from(signature.is_batched() || !spec.dims.is_empty());
    &spec.dims[skip..]
}

impl<'a> Rows<'a> {
    pub(crate) fn new(signature: &'a Signature) -> Self {
        let mut cells = 0;
        let filling = |spec: &TensorSpec| {
            let fixed = inner(signature, spec).iter().map(Dim::fixed).collect::<Option<Vec<_>>>();
            let width = fixed.and_then(|sizes| sizes.into_iter().try_fold(1, usize::checked_mul));
            let width = width.filter(|width| cells + width <= MAX_CELLS);
            let first = cells;
            cells += width.unwrap_or_default();
            let elements = Elements::new(spec.dtype, width.unwrap_or_default());
            Filling { elements, sizes: Sizes::default(), width, first, seen: Seen::Nothing }
        };
        let inputs = signature.inputs().iter().map(filling).collect();
        Self { signature, inputs, rows: 0, cells: vec![false; cells] }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Whether plain values need no name.
    pub(crate) fn has_one_input(&self) -> bool {
        self.inputs.len() == 1
    }

    /// Where the value of this name goes.
    pub(crate) fn slot(&self, name: &str) -> Result<Slot, String> {
        slot(self.signature, name)
    }

    /// Where values without names go, in the order of the signature. `None` where a row's elements have no fixed count.
    pub(crate) fn places(&self) -> Option<Vec<Slot>> {
        let widths = self.inputs.iter().map(|filling| filling.width).collect::<Option<Vec<_>>>()?;
        let cells = |(input, width): (usize, usize)| (0..width).map(move |offset| Slot::Cell { input, offset });
        Some(widths.into_iter().enumerate().flat_map(cells).collect())
    }

    /// The next value goes there.
    pub(crate) fn value(&mut self, slot: Slot) -> Value<'_, 'a> {
        Value { rows: self, slot }
    }

    /// A scalar goes there.
    pub(crate) fn put(&mut self, slot: Slot, scalar: Scalar<'_>) -> Result<(), String> {
        self.open(slot)?;
        let spec = &self.signature.inputs()[slot.input()];
        let filling = &mut self.inputs[slot.input()];
        let scalar = special(spec.dtype, scalar);
        let fits = match slot {
            Slot::Input(_) => filling.elements.push(scalar),
            Slot::Cell { offset, .. } => filling.set(self.rows, offset, scalar),
        };
        if fits { Ok(()) } else { Err(format!("{}: {}", named(self.signature, slot), misfit(spec.dtype, scalar))) }
    }

    /// Says that a value is about to come, where it may.
    fn open(&mut self, slot: Slot) -> Result<(), String> {
        let twice = || format!("{} is there twice", named(self.signature, slot));
        let filling = &mut self.inputs[slot.input()];
        match slot {
            Slot::Input(_) => {
                if filling.seen != Seen::Nothing {
                    return Err(twice());
                }
                filling.seen = Seen::Whole;
            }
            Slot::Cell { offset, .. } => {
                let width = filling
                    .width
                    .filter(|width| offset < *width)
                    .ok_or_else(|| format!("{} has no elements that can come one by one", named(self.signature, slot)))?;
                let mine = filling.first..filling.first + width;
                let seen = match filling.seen {
                    Seen::Whole => return Err(twice()),
                    Seen::Cells(seen) => seen,
                    Seen::Nothing => {
                        self.cells[mine.clone()].fill(false);
                        filling.elements.resize((self.rows + 1) * width);
                        0
                    }
                };
                if std::mem::replace(&mut self.cells[mine][offset], true) {
                    return Err(twice());
                }
                filling.seen = Seen::Cells(seen + 1);
            }
        }
        Ok(())
    }

    /// Ends a row, which then has to have a value for everything.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        for (input, filling) in self.inputs.iter_mut().enumerate() {
            let spec = &self.signature.inputs()[input];
            match filling.seen {
                Seen::Nothing if spec.features.is_empty() => return Err(format!("`{}` is missing", spec.name)),
                Seen::Whole => filling.sizes.tell(),
                Seen::Cells(count) if filling.width == Some(count) => {}
                _ => {
                    let none = filling.seen == Seen::Nothing;
                    let has = |offset: &usize| !none && self.cells[filling.first + offset];
                    let all = (0..filling.width.unwrap_or_default()).filter(|offset| !has(offset));
                    let missing: Vec<String> =
                        all.take(MAX_NAMED).map(|offset| named(self.signature, Slot::Cell { input, offset })).collect();
                    return Err(format!("{} missing", are(&missing)));
                }
            }
            filling.seen = Seen::Nothing;
        }
        self.rows += 1;
        Ok(())
    }

    /// The tensors of all rows.
    pub(crate) fn finish(self) -> Result<Inputs, String> {
        let Self { signature, inputs, rows, .. } = self;
        let tensor = |(spec, filling): (&TensorSpec, Filling)| {
            let inner = inner(signature, spec);
            let Filling { elements, sizes, width, .. } = filling;
            let shape: Shape = if rows == 0 || !sizes.is_told() {
                // Nobody has told: the signature does, 0 where it leaves a size open. An input by its elements has all fixed.
                std::iter::once(rows).chain(inner.iter().map(|dim| dim.fixed().unwrap_or(0))).collect()
            } else {
                std::iter::once(rows).chain(sizes.list().iter().copied()).collect()
            };
            let shape = if width == Some(1) && elements.len() == rows { ones(rows, inner) } else { shape };
            let shape = if spec.dims.is_empty() && rows == 1 { sizes.shape() } else { shape };
            let tensor = elements.tensor(shape).map_err(|error| format!("`{}`: {error}", spec.name))?;
            Ok((spec.name.clone(), tensor))
        };
        signature.inputs().iter().zip(inputs).map(tensor).collect()
    }
}

impl Filling {
    /// Sets an element of a row, and with the first one says how many they are.
    fn set(&mut self, row: usize, offset: usize, scalar: Scalar<'_>) -> bool {
        let width = self.width.unwrap_or_default();
        self.elements.set(row * width + offset, scalar)
    }
}

/// One element a row, in the dimensions that the signature has for it.
fn ones(rows: usize, inner: &[Dim]) -> Shape {
    std::iter::once(rows).chain(inner.iter().map(|_| 1)).collect()
}

impl Slot {
    pub(crate) fn input(self) -> usize {
        match self {
            Self::Input(input) | Self::Cell { input, .. } => input,
        }
    }
}

/// Most names in one message.
pub(crate) const MAX_NAMED: usize = 8;

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn slot(signature: &Signature, name: &str) -> Result<Slot, String> {
    let field = signature.field(name).map(|place| &signature.fields()[place]);
    if let Some((field, offset)) = field.and_then(|field| Some((field, field.column?))) {
        return Ok(Slot::Cell { input: field.input, offset });
    }
    signature.input(name).map(Slot::Input).ok_or_else(|| {
        let known: Vec<String> = signature.fields().iter().take(MAX_NAMED).map(|field| format!("`{}`", field.name)).collect();
        let more = if signature.fields().len() > MAX_NAMED { ", …" } else { "" };
        format!("`{name}` is unknown: the model has {}{more}", known.join(", "))
    })
}

fn named(signature: &Signature, slot: Slot) -> String {
    let spec = &signature.inputs()[slot.input()];
    match slot {
        Slot::Cell { offset, .. } if !spec.features.is_empty() => format!("`{}`", spec.features[offset].name),
        Slot::Cell { offset, .. } if inner(signature, spec).iter().any(|dim| dim.fixed() != Some(1)) => {
            format!("element {offset} of `{}`", spec.name)
        }
        _ => format!("`{}`", spec.name),
    }
}

/// Reads one value of a row.
pub(crate) struct Value<'t, 'a> {
    rows: &'t mut Rows<'a>,
    slot: Slot,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        use serde::de::Error;
        let Self { rows, slot } = self;
        rows.open(slot).map_err(D::Error::custom)?;
        let (row, filling) = (rows.rows, &mut rows.inputs[slot.input()]);
        let read = match slot {
            // A value and a list of it are the same where there is only one.
            Slot::Input(_) if filling.width == Some(1) => {
                let Filling { elements, .. } = filling;
                Cell { dtype: elements.dtype, put: |scalar: Scalar<'_>| elements.push(scalar), depth: 0 }
                    .deserialize(deserializer)
            }
            Slot::Input(_) => Nest::new(&mut filling.elements, &mut filling.sizes).deserialize(deserializer),
            Slot::Cell { offset, .. } => {
                let dtype = filling.elements.dtype;
                Cell { dtype, put: |scalar: Scalar<'_>| filling.set(row, offset, scalar), depth: 0 }.deserialize(deserializer)
            }
        };
        read.map_err(|error| D::Error::custom(format!("{}: {error}", named(rows.signature, slot))))
    }
}

/// Whole inputs, or whole columns of them, under construction.
pub(crate) struct Columns<'a> {
    signature: &'a Signature,
    tensors: Vec<Option<(Elements, Sizes)>>,
    /// By the place of the field.
    columns: Vec<Option<Elements>>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(signature: &'a Signature) -> Self {
        let none = |_: &TensorSpec| None;
        let columns = signature.fields().iter().map(|_| None).collect();
        Self { signature, tensors: signature.inputs().iter().map(none).collect(), columns }
    }

    /// The next value is the input or the column of this name.
    pub(crate) fn value(&mut self, name: &str) -> Result<Column<'_, 'a>, String> {
        let slot = slot(self.signature, name)?;
        let (Slot::Input(input) | Slot::Cell { input, .. }) = slot;
        let field = self.signature.field(name).filter(|_| matches!(slot, Slot::Cell { .. }));
        let is_there = match field {
            Some(field) => self.columns[field].is_some() || self.tensors[input].is_some(),
            None => self.tensors[input].is_some() || self.has_columns(input),
        };
        if is_there {
            return Err(format!("`{name}` is there twice"));
        }
        Ok(Column { dtype: self.signature.inputs()[input].dtype, columns: self, input, field })
    }

    /// The next value is the only input.
    pub(crate) fn only(&mut self) -> Result<Column<'_, 'a>, String> {
        match self.signature.inputs() {
            [spec] => Ok(Column { dtype: spec.dtype, columns: self, input: 0, field: None }),
            specs => Err(format!("the model has {} inputs: expected an object of named ones", specs.len())),
        }
    }

    fn has_columns(&self, input: usize) -> bool {
        self.signature.fields().iter().zip(&self.columns).any(|(field, column)| field.input == input && column.is_some())
    }

    /// The tensors. Inputs that are missing are told by who validates requests.
    pub(crate) fn finish(mut self) -> Result<Inputs, String> {
        let mut inputs = Inputs::new();
        for (input, spec) in self.signature.inputs().iter().enumerate() {
            let tensor = match self.tensors[input].take() {
                Some((elements, sizes)) => whole(self.signature, spec, elements, &sizes),
                None if self.has_columns(input) => self.joined(input, spec)?,
                None => continue,
            };
            inputs.push((spec.name.clone(), tensor.map_err(|error| format!("`{}`: {error}", spec.name))?));
        }
        Ok(inputs)
    }

    /// An input from its columns.
    fn joined(&mut self, input: usize, spec: &TensorSpec) -> Result<sluicegate_core::Result<Tensor>, String> {
        let (mut columns, mut missing) = (Vec::new(), Vec::new());
        for (field, column) in self.signature.fields().iter().zip(&mut self.columns).filter(|(field, _)| field.input == input) {
            match column.take() {
                Some(column) => columns.push(column),
                None => missing.push(format!("`{}`", field.name)),
            }
        }
        if !missing.is_empty() {
            missing.truncate(MAX_NAMED);
            return Err(format!("{} missing", are(&missing)));
        }
        let rows = columns.first().map_or(0, Elements::len);
        if let Some(place) = columns.iter().position(|column| column.len() != rows) {
            let (first, other) = (&spec.features[0].name, &spec.features[place].name);
            return Err(format!("`{other}` has {} rows, `{first}` has {rows}", columns[place].len()));
        }
        let shape = Shape::new(&[rows, columns.len()]);
        Ok(Elements::interleaved(&columns).tensor(shape))
    }
}

fn whole(signature: &Signature, spec: &TensorSpec, elements: Elements, sizes: &Sizes) -> sluicegate_core::Result<Tensor> {
    let inner = inner(signature, spec);
    // One value a row may be written without the dimensions that are 1.
    if let [rows] = *sizes.list()
        && !inner.is_empty()
        && inner.iter().all(|dim| dim.fixed() == Some(1))
    {
        return elements.tensor(ones(rows, inner));
    }
    elements.tensor(sizes.shape())
}

/// Reads a whole input, or a column of one.
pub(crate) struct Column<'t, 'a> {
    columns: &'t mut Columns<'a>,
    dtype: DType,
    input: usize,
    field: Option<usize>,
}

impl<'de> DeserializeSeed<'de> for Column<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        use serde::de::Error;
        let Self { columns, dtype, input, field } = self;
        let (mut elements, mut sizes) = (Elements::new(dtype, 0), Sizes::default());
        let name = field.map_or(&columns.signature.inputs()[input].name, |field| &columns.signature.fields()[field].name);
        let named = |error: &dyn std::fmt::Display| D::Error::custom(format!("`{name}`: {error}"));
        Nest::new(&mut elements, &mut sizes).deserialize(deserializer).map_err(|error| named(&error))?;
        match field {
            None => columns.tensors[input] = Some((elements, sizes)),
            // A column is a list of values, each of which may be alone in a list.
            Some(_) if sizes.list().len() > 1 && sizes.list()[1..] != [1] => {
                return Err(named(&"expected a list of values, got lists of lists"));
            }
            Some(field) => columns.columns[field] = Some(elements),
        }
        Ok(())
    }
}
