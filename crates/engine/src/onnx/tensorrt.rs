//! ONNX Runtime's provider for TensorRT, which compiles a model for the sizes that it will be asked for.

use ort::ep::{ExecutionProviderDispatch, TensorRT};

use crate::graph::Graph;

/// The provider for a device. What it does not take over, the provider after it does.
///
/// Compiled models are not kept in files: the runtime finds those by the graph and not by the weights, so that a version that was trained
/// anew would answer as the one before.
pub(super) fn provider(gpu: u32, graph: &Graph, max_rows: usize) -> ExecutionProviderDispatch {
    let provider = TensorRT::default().with_device_id(gpu.cast_signed()).with_engine_cache(false);
    match (sizes(graph, 1), sizes(graph, max_rows)) {
        (Some(one), Some(most)) => {
            provider.with_profile_min_shapes(one).with_profile_opt_shapes(&most).with_profile_max_shapes(&most).build()
        }
        _ => provider.build(),
    }
}

/// What its owner should know, where sizes are not known before requests come.
pub(super) fn remark(graph: &Graph) -> Option<&'static str> {
    graph.has_free_inner_dimensions().then_some(
        "TensorRT compiles the model anew, for seconds in which callers wait, where a request is larger or smaller than those before: \
         fix the sizes of all dimensions but the first",
    )
}

/// The sizes of the inputs that take any number of rows, at so many, as the provider reads them; `None` where there are none such, or
/// callers choose other sizes too.
fn sizes(graph: &Graph, rows: usize) -> Option<String> {
    if graph.has_free_inner_dimensions() {
        return None;
    }
    let free = graph.required_inputs().filter(|input| input.dims.first() == Some(&None));
    let of_input = |input: &crate::graph::Declared| {
        let inner = input.dims.iter().skip(1).flatten().map(|size| format!("x{size}"));
        // What the provider takes apart has no quotes.
        (!input.name.contains([':', ','])).then(|| format!("{}:{rows}{}", input.name, inner.collect::<String>()))
    };
    let all = free.map(of_input).collect::<Option<Vec<_>>>()?;
    (!all.is_empty()).then(|| all.join(","))
}

#[cfg(test)]
mod tests {
    use sluicegate_core::{DType, Dim};
    use sluicegate_testkit::onnx::{Model, rows};

    use super::*;

    fn graph(inputs: &[(&str, &[Dim])]) -> Graph {
        let model = inputs.iter().fold(Model::new(17), |model, (name, dims)| model.input(name, DType::Fp32, dims));
        let model = model.output("y", DType::Fp32, inputs[0].1).node("Identity", &[inputs[0].0], &["y"], &[]);
        Graph::read(&model.build()).expect("a model")
    }

    #[test]
    fn it_is_compiled_for_one_row_to_the_most_of_a_run_where_all_else_is_fixed() {
        let picture = [rows(), Dim::Fixed(3), Dim::Fixed(224)];
        let two = graph(&[("x", &picture), ("scale", &[Dim::Fixed(1)]), ("age", &[rows()])]);
        assert_eq!(sizes(&two, 64).as_deref(), Some("x:64x3x224,age:64"));
        assert_eq!((sizes(&graph(&[("x", &[Dim::Fixed(2)])]), 64), remark(&two)), (None, None));
        let text = graph(&[("ids", &[rows(), Dim::Free(None)])]);
        assert!(sizes(&text, 64).is_none() && remark(&text).is_some_and(|remark| remark.contains("fix the sizes")));
        assert_eq!(sizes(&graph(&[("x:0", &picture)]), 64), None);
    }
}
