//! What the runtimes say when they fail, as one line that helps: without places in their own source, and not endless.

/// Longest sentence that is passed on.
const LONGEST: usize = 400;

/// One line of `message`.
pub(crate) fn sentence(message: &str) -> String {
    let words: Vec<_> = message.split_whitespace().filter(|word| !is_source_place(word)).collect();
    let mut line = without_signature(&words.join(" "));
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST));
        line.push('…');
    }
    line.trim().trim_end_matches(['.', ':']).to_owned()
}

/// What ONNX Runtime says of a model that it does not load, with the operator named first where one is missing.
pub(crate) fn of_load(message: &str, version: &str) -> String {
    let line = sentence(message);
    let Some((name, domain)) = missing_operator(&line) else { return line };
    let domain = if domain.is_empty() { String::new() } else { format!(" of domain {domain}") };
    let what = if line.contains("Could not find an implementation") { " for the types that it is used with" } else { "" };
    format!("operator {name}{domain} is not implemented by onnxruntime {version}{what}")
}

/// The name and domain of the operator in one of the three sentences that ONNX Runtime has for its absence.
fn missing_operator(line: &str) -> Option<(&str, &str)> {
    let between = |start: &str, end: &str| line.split_once(start)?.1.split_once(end).map(|(between, _)| between);
    if line.ends_with("is not a registered function/op") {
        let (domain, name) = between("Fatal error: ", "(")?.rsplit_once(':').unwrap_or(("", between("Fatal error: ", "(")?));
        return Some((name, domain));
    }
    if let Some(name) = between("No Op registered for ", " with domain_version") {
        return Some((name, ""));
    }
    between("Could not find an implementation for ", "(").map(|name| (name.rsplit('.').next().unwrap_or(name), ""))
}

/// `/onnxruntime_src/onnxruntime/core/graph/graph.cc:1420`
fn is_source_place(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_digit()) && [".cc:", ".h:", ".hpp:", ".cpp:"].iter().any(|ending| word.contains(ending))
}

/// Leaves out what stands before the message proper: `… onnxruntime::common::Status onnxruntime::Foo::Bar(const X &) const [with T = int] `.
fn without_signature(line: &str) -> String {
    let Some(start) = ["virtual ", "static ", "void onnxruntime::", "bool onnxruntime::", "onnxruntime::"]
        .iter()
        .filter_map(|start| line.find(start))
        .min()
    else {
        return line.to_owned();
    };
    let rest = &line[start..];
    let Some(open) = rest.find('(') else { return line.to_owned() };
    let mut depth = 0usize;
    let close = rest[open..].char_indices().find_map(|(place, c)| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        (depth == 0).then_some(open + place + 1)
    });
    let Some(close) = close else { return line.to_owned() };
    let mut tail = rest[close..].trim_start();
    tail = tail.strip_prefix("const").unwrap_or(tail).trim_start();
    if let Some(end) = tail.strip_prefix("[with ").and_then(|with| with.find(']')) {
        tail = tail["[with ".len() + end + 1..].trim_start();
    }
    format!("{}{tail}", &line[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_the_runtimes_source_are_left_out() {
        let message = "Non-zero status code returned while running Gather node. Name:'g' Status Message: \
            /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/gather.cc:158 \
            virtual onnxruntime::common::Status onnxruntime::Gather::Compute(onnxruntime::OpKernelContext*) const \
            indices element out of data bounds, idx=7\n";
        assert_eq!(
            sentence(message),
            "Non-zero status code returned while running Gather node. Name:'g' Status Message: \
             indices element out of data bounds, idx=7"
        );
        let with = "/a/b.h:3 T onnxruntime::Foo(const std::function<void (int)>&) [with T = float] missing";
        assert_eq!(sentence(with), "T missing");
        assert_eq!(sentence(&"größe ".repeat(200)).chars().last(), Some('…'));
        assert_eq!(sentence("onnxruntime::Unfinished(("), "onnxruntime::Unfinished((");
    }

    #[test]
    fn a_missing_operator_is_named_with_its_domain() {
        let version = "1.31.1";
        let named = [
            (
                "Fatal error: a.b:Foo(-1) is not a registered function/op",
                "operator Foo of domain a.b is not implemented by onnxruntime 1.31.1",
            ),
            (
                "In Node, (\"n\", Foo, \"\", -1) : Error No Op registered for Foo with domain_version of 17",
                "operator Foo is not implemented by onnxruntime 1.31.1",
            ),
            (
                "Could not find an implementation for Softmax(13) node with name ''",
                "operator Softmax is not implemented by onnxruntime 1.31.1 for the types that it is used with",
            ),
            ("Graph output (y) does not exist in the graph.", "Graph output (y) does not exist in the graph"),
        ];
        for (said, told) in named {
            assert_eq!(of_load(said, version), told);
        }
    }
}
