//! The change of a file that makes a promoted candidate the version that answers: text for text, so that comments stay.

use sluicegate_core::ModelName;

use super::error::ConfigError;
use super::tree::{Place, Step, Tree, Value};

/// The text of the file with `version` set to the candidate and without the model's `rollout`.
///
/// # Errors
/// Where the file is no configuration, does not list the model with a version and a rollout, or is written in a way that cannot be
/// changed in place.
pub fn promoted(file: &str, text: &str, model: &ModelName, candidate: u64) -> Result<String, ConfigError> {
    let tree = Tree::parse(file, text.as_bytes())?;
    let refuse = |message: String| ConfigError::new(file, message);
    let index = position(&tree, model).ok_or_else(|| refuse(format!("lists no model `{model}`")))?;
    let way = |key: &str| [Step::from("models"), Step::from(index), Step::from(key)];
    let missing = |key: &str| refuse(format!("says no `{key}` of the model `{model}`"));
    let version = offset(text, tree.nearest(&way("version"))).filter(|_| has(&tree, &way("version")));
    let rollout = offset(text, tree.key_place(&way("rollout"))).filter(|_| has(&tree, &way("rollout")));
    let version = version.ok_or_else(|| missing("version"))?;
    let rollout = rollout.ok_or_else(|| missing("rollout"))?;
    let mut edits = [(version..scalar_end(text, version), format!("\"{candidate}\"")), (entry(text, rollout), String::new())];
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut changed = text.to_owned();
    for (range, with) in edits {
        changed.replace_range(range, &with);
    }
    // What came out is read again: a way of writing that was not thought of is told and not made worse.
    let again = Tree::parse(file, changed.as_bytes()).ok().filter(|again| {
        let says = again.root.get(&Step::from("models")).and_then(|node| node.get(&Step::from(index)));
        let version = says.and_then(|model| model.get(&Step::from("version"))).map(|node| &node.value);
        position(again, model) == Some(index)
            && matches!(version, Some(Value::Text(version)) if *version == candidate.to_string())
            && says.is_some_and(|model| model.get(&Step::from("rollout")).is_none())
    });
    let by_hand =
        || refuse(format!("cannot be changed in place: set `version: \"{candidate}\"` of `{model}` and remove its `rollout`"));
    again.map(|_| changed).ok_or_else(by_hand)
}

fn position(tree: &Tree, model: &ModelName) -> Option<usize> {
    let Value::List(models) = &tree.find(&["models"])?.value else { return None };
    models.iter().position(|node| matches!(node.get(&Step::from("name")).map(|name| &name.value), Some(Value::Text(name)) if *name == model.as_str()))
}

fn has(tree: &Tree, way: &[Step]) -> bool {
    way.iter().try_fold(&tree.root, |node, step| node.get(step)).is_some()
}

/// The place in the text, in bytes. Columns count characters.
fn offset(text: &str, place: &Place) -> Option<usize> {
    let Place::File { line, column } = place else { return None };
    let before = usize::try_from(*line).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let rest = text.get(start..)?;
    let characters = usize::try_from(*column).ok()?.checked_sub(1)?;
    let inside = rest.char_indices().nth(characters).map_or(rest.len(), |(at, _)| at);
    Some(start + inside)
}

/// Where the scalar ends that begins here.
fn scalar_end(text: &str, start: usize) -> usize {
    let rest = &text[start..];
    let length = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest[1..].find(quote).map_or(rest.len(), |end| end + 2),
        _ => rest.find([',', '}', ']', '#', '\n']).map_or(rest.len(), |end| rest[..end].trim_end().len()),
    };
    start + length
}

/// All that belongs to the key that begins here: its lines, or its part of a line in braces.
fn entry(text: &str, start: usize) -> std::ops::Range<usize> {
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let indent = start - line;
    if text[line..start].chars().all(|c| c == ' ') {
        let deeper = |line: &&str| line.trim().is_empty() || line.len() - line.trim_start_matches(' ').len() > indent;
        let mut lines = text[line..].split_inclusive('\n');
        let first = lines.next().map_or(0, str::len);
        let mut end = line + first;
        let mut blank = end;
        for next in lines.take_while(deeper) {
            end += next.len();
            // Empty lines after it stay: they part what comes next from what came before.
            blank = if next.trim().is_empty() { blank } else { end };
        }
        return line..blank;
    }
    let end = start + value_end(&text[start..]);
    match text[..start].trim_end().strip_suffix(',') {
        Some(before) => before.len()..end,
        None => start..text[end..].strip_prefix(',').map_or(end, |after| text.len() - after.trim_start_matches(' ').len()),
    }
}

/// The length of `key: value` in braces.
fn value_end(text: &str) -> usize {
    let (mut depth, mut quote) = (0usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) => quote = if c == open { None } else { Some(open) },
            (None, '"' | '\'') => quote = Some(c),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') if depth == 0 => return text[..at].trim_end().len(),
            (None, '}' | ']') => depth -= 1,
            (None, ',') if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(text: &str) -> Result<String, String> {
        promoted("f.yaml", text, &"fraud".parse().expect("a name"), 3).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_the_rollout_go_and_all_else_stays() {
        let text = "# ours\nmodels:\n  - name: digits\n    version: \"1\"\n  - name: fraud # the one\n    version: \"2\"   # today\n    rollout:\n      strategy: canary\n      candidate: 3\n\n      steps: [ { weight: 5% } ]\n\n    device: cpu\n";
        let after = "# ours\nmodels:\n  - name: digits\n    version: \"1\"\n  - name: fraud # the one\n    version: \"3\"   # today\n\n    device: cpu\n";
        assert_eq!(patched(text).as_deref(), Ok(after));
    }

    #[test]
    fn a_model_in_braces_is_changed_in_its_line() {
        let text = "models:\n  - { name: fraud, version: 2, rollout: { strategy: replace, candidate: 3, steps: [{ weight: 5% }] }, device: cpu }\n";
        assert_eq!(patched(text).as_deref(), Ok("models:\n  - { name: fraud, version: \"3\", device: cpu }\n"));
        let last = "models: [ { name: fraud, rollout: { candidate: 3, note: \"}\" }, version: '2' } ]";
        assert_eq!(patched(last).as_deref(), Ok("models: [ { name: fraud, version: \"3\" } ]"));
    }

    #[test]
    fn what_cannot_be_changed_is_told() {
        assert!(patched("models: [ { name: digits } ]").expect_err("no such model").contains("lists no model `fraud`"));
        assert!(patched("models: [ { name: fraud, version: 2 } ]").expect_err("no rollout").contains("no `rollout`"));
        let anchored = "x: &r { candidate: 3 }\nmodels:\n  - name: fraud\n    version: &v 2\n    rollout: *r\n";
        assert!(patched(anchored).is_ok_and(|text| text.contains("version: &v \"3\"") && !text.contains("rollout")));
    }
}
