//! A graph of ONNX that takes tokens, with a tokenizer beside it: served as a model that takes text, whichever engine runs it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sluicegate_core::shape::Dims;
use sluicegate_core::signature::TensorSpec;
use sluicegate_core::{DType, Dim, Result, Shape, Tensor};
use sluicegate_text::files::{failed, read_if_any, refused};
use sluicegate_text::{Bound, FILE, Filler, Pooling, Problem, Reader, Room, Task, Text, Tokens, labels, modules};

use crate::{Engine, ModelFile, Opened, Options, TextOptions, TokenCount, caught};

/// Tokens of padding that cost as much as another run does, on the processor: its weights are read anew.
const RUN: usize = 32;

/// Most tokens that a graph may take and no fewer, and most numbers of a vector.
const MAX_LENGTH: usize = 1 << 16;
const MAX_WIDTH: usize = 1 << 20;

const LOGITS: &str = "logits";

/// What of `config.json` is of use here; there may be none.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    model_type: String,
    architectures: Option<Vec<String>>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    pad_token_id: Option<u32>,
    id2label: BTreeMap<u32, String>,
    problem_type: Option<Problem>,
}

impl Config {
    fn is_of_tokens(&self) -> bool {
        self.architectures.iter().flatten().next().is_some_and(|architecture| architecture.ends_with("ForTokenClassification"))
    }

    fn room(&self) -> Room {
        // These count positions from behind the padding's.
        let behind = matches!(&*self.model_type, "roberta" | "xlm-roberta" | "camembert" | "mpnet");
        let first = if behind { self.pad_token_id.unwrap_or(0) as usize + 1 } else { 0 };
        let positions = self.max_position_embeddings.map(|most| most.saturating_sub(first));
        Room { positions, vocabulary: self.vocab_size }
    }
}

/// One of the graph's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Ids,
    Mask,
    Types,
}

/// What the output that is taken holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// A vector a token.
    States,
    /// A vector a text.
    Vectors,
    /// A number a label and text.
    Logits,
    /// A number a label and token.
    Tags,
}

/// What a graph of tokens takes and gives.
struct Graph {
    /// By the places of its inputs.
    parts: Vec<Part>,
    /// The number of tokens that it takes, where that is fixed.
    length: Option<usize>,
    /// The place of the output that is taken.
    output: usize,
    given: Given,
    /// Numbers in one of its vectors.
    width: usize,
}

/// How the graph is asked; the instances share it.
struct Asked {
    graph: Graph,
    reader: Reader,
    pooling: Pooling,
    filler: Filler,
}

struct Instance {
    engine: Box<dyn Engine>,
    asked: Arc<Asked>,
    count: TokenCount,
}

/// Lets a graph that takes tokens take text, where a tokenizer lies beside it. A graph that cannot do so is served as it is, and it is
/// remarked why.
///
/// # Errors
/// What is wrong with the files beside it.
pub(crate) fn reading(opened: Opened, model: &ModelFile<'_>, options: &Options) -> Result<Opened> {
    let folder = model.path.parent().unwrap_or(Path::new("."));
    if !options.text.tokenize || !folder.join(FILE).is_file() {
        return Ok(opened);
    }
    let config = read_if_any::<Config>(folder, ModelFile::SAFETENSORS).map(Option::unwrap_or_default);
    let of_tokens = config.as_ref().is_ok_and(Config::is_of_tokens);
    let graph = match Graph::of(&opened.inputs, &opened.outputs, of_tokens) {
        Ok(graph) => graph,
        Err(why) => return Ok(Opened { remark: Some(format!("{FILE} has no effect: {why}")), ..opened }),
    };
    // Elsewhere a run costs too much to make two of one.
    let run = if opened.device == "cpu" { RUN } else { usize::MAX };
    let asked = caught(|| Asked::load(folder, &config?, graph, run, &options.text));
    let asked = Arc::new(asked.unwrap_or_else(|panic| Err(refused(format!("{FILE}: {panic}"))))?);
    let instance =
        |engine| -> Box<dyn Engine> { Box::new(Instance { engine, asked: asked.clone(), count: TokenCount::default() }) };
    let (inputs, outputs, example) = asked.reader.signature();
    let instances = opened.instances.into_iter().map(instance).collect();
    Ok(Opened { inputs, outputs, example, text: true, instances, ..opened })
}

impl Graph {
    /// Reads a signature, or says why it is not one of tokens. Logits a token are taken where it is tokens that are told of: a model that
    /// guesses words gives as many.
    fn of(inputs: &[TensorSpec], outputs: &[TensorSpec], of_tokens: bool) -> Result<Self, String> {
        let mut length = None;
        let part = |input: &TensorSpec| {
            let name = &*input.name;
            let part = match name {
                "input_ids" => Part::Ids,
                "attention_mask" => Part::Mask,
                "token_type_ids" => Part::Types,
                _ => return Err(format!("the graph takes `{name}`, of which a tokenizer knows nothing")),
            };
            match (input.dtype, &*input.dims) {
                (DType::Int64, [Dim::Free(_), Dim::Free(_)]) => {}
                (DType::Int64, [Dim::Free(_), Dim::Fixed(size @ 1..=MAX_LENGTH)]) => length = Some(*size),
                (dtype, dims) => return Err(format!("the graph's `{name}` is {dtype} {}, expected INT64 [N, T]", Dims(dims))),
            }
            Ok(part)
        };
        let parts = inputs.iter().map(part).collect::<Result<Vec<_>, String>>()?;
        for (part, name) in [(Part::Ids, "input_ids"), (Part::Mask, "attention_mask")] {
            if !parts.contains(&part) {
                return Err(format!("the graph does not take `{name}`"));
            }
        }
        let known = ["sentence_embedding", LOGITS, "last_hidden_state", "token_embeddings"];
        let named = |name: &&str| outputs.iter().position(|output| &*output.name == *name);
        let Some(output) = known.iter().find_map(named).or((outputs.len() == 1).then_some(0)) else {
            return Err(format!("the graph has several outputs, and none of them is {}", known.join(", ")));
        };
        let TensorSpec { name, dtype, dims, .. } = &outputs[output];
        let (given, width) = match (dtype, &**dims, &**name == LOGITS) {
            (DType::Fp32, [_, _, Dim::Fixed(width)], true) if of_tokens => (Given::Tags, *width),
            (DType::Fp32, [_, Dim::Fixed(width)], true) => (Given::Logits, *width),
            (DType::Fp32, [_, Dim::Fixed(width)], false) => (Given::Vectors, *width),
            (DType::Fp32, [_, _, Dim::Fixed(width)], false) => (Given::States, *width),
            _ => (Given::Vectors, 0),
        };
        if !(1..=MAX_WIDTH).contains(&width) {
            return Err(format!("the graph's `{name}` is {dtype} {}, expected FP32 with a vector for each text", Dims(dims)));
        }
        Ok(Self { parts, length, output, given, width })
    }
}

impl Asked {
    fn load(folder: &Path, config: &Config, graph: Graph, run: usize, options: &TextOptions) -> Result<Self> {
        let size = graph.width;
        let (pooling, task) = match graph.given {
            Given::States => {
                let (pooling, steps) = modules(folder, size)?;
                (pooling, Task::Embed { size, steps })
            }
            Given::Vectors => (Pooling::First, Task::Embed { size, steps: Vec::new() }),
            Given::Tags => (Pooling::First, Task::Tag(labels(&config.id2label, size)?)),
            Given::Logits => (Pooling::First, Task::of_labels(&config.id2label, config.problem_type, size)?),
        };
        let Room { positions, vocabulary } = config.room();
        let text = Text::load(folder, Room { positions: graph.length.or(positions), vocabulary }, options)?;
        let filler = text.filler.unwrap_or(Filler { id: config.pad_token_id.unwrap_or(0), ..Filler::default() });
        if let Some(words) = vocabulary.filter(|words| filler.id as usize >= *words) {
            return Err(refused(format!("{FILE} fills up with token {}, the model has embeddings for {words}", filler.id)));
        }
        let bound = Bound { tokens: options.max_tokens.get(), run: Some(run) };
        let reader = Reader { text, task, bound, length: graph.length };
        Ok(Self { graph, reader, pooling, filler })
    }

    /// Fills rows up to one length, runs the graph, and takes each row's numbers out of what it gives.
    fn compute(&self, engine: &mut dyn Engine, rows: &[&Tokens]) -> Result<Vec<f32>> {
        let Graph { parts, length, output, given, width } = &self.graph;
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let length = length.unwrap_or(longest);
        let start = |row: &Tokens| if self.filler.left { length - row.ids.len() } else { 0 };
        let fill = |part: &Part| {
            let with = match part {
                Part::Ids => self.filler.id,
                Part::Mask => 0,
                Part::Types => self.filler.kind,
            };
            let mut all = vec![i64::from(with); rows.len() * length];
            for (row, places) in rows.iter().zip(all.chunks_exact_mut(length)) {
                let places = &mut places[start(row)..][..row.ids.len()];
                let mut put = |values: &[u32]| places.iter_mut().zip(values).for_each(|(place, &value)| *place = value.into());
                match part {
                    Part::Ids => put(&row.ids),
                    Part::Types => put(&row.types),
                    Part::Mask => places.fill(1),
                }
            }
            Tensor::from_vec(Shape::new(&[rows.len(), length]), all)
        };
        let inputs = parts.iter().map(fill).collect::<Result<Vec<_>>>()?;
        let outputs = engine.run(&inputs, &[*output])?;
        let [output] = &outputs[..] else { return Err(failed("the graph did not give the one output asked for")) };
        let is_a_token = matches!(given, Given::States | Given::Tags);
        let expected = if is_a_token { vec![rows.len(), length, *width] } else { vec![rows.len(), *width] };
        let values = output
            .values::<f32>()
            .filter(|_| output.shape().sizes() == expected)
            .ok_or_else(|| failed(format!("the graph gave {} {}, expected FP32 {expected:?}", output.dtype(), output.shape())))?;
        if !is_a_token {
            return Ok(values.into_owned());
        }
        let mut pooled = Vec::with_capacity(rows.len() * width);
        for (row, states) in rows.iter().zip(values.chunks_exact(length * width)) {
            let own = &states[start(row) * width..][..row.ids.len() * width];
            match given {
                Given::Tags => pooled.extend_from_slice(own),
                _ => self.pooling.pool(own, *width, &mut pooled),
            }
        }
        Ok(pooled)
    }
}

impl Engine for Instance {
    fn run(&mut self, inputs: &[Tensor], wanted: &[usize]) -> Result<Vec<Tensor>> {
        let Self { engine, asked, count } = self;
        caught(|| asked.reader.run(inputs, wanted, count, |rows| asked.compute(engine.as_mut(), rows)))
            .unwrap_or_else(|panic| Err(failed(format!("{FILE}: {panic}"))))
    }

    fn tokens(&self) -> Option<TokenCount> {
        Some(self.count)
    }
}
