//! Files of safetensors written by hand, right ones and wrong ones.

use std::path::Path;

/// A tensor: its name, its sizes, its elements.
pub type Named<'a> = (&'a str, &'a [usize], Vec<f32>);

/// The bytes of a file: the length of its head, the head, the elements.
pub fn file(tensors: &[Named<'_>]) -> Vec<u8> {
    let mut head = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] });
        head.insert((*name).to_owned(), entry);
    }
    with_head(&serde_json::Value::Object(head).to_string(), &data)
}

/// The bytes of a file with any head.
pub fn with_head(head: &str, data: &[u8]) -> Vec<u8> {
    [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), data].concat()
}

/// Writes a version: its configuration and its weights.
///
/// # Panics
/// Where the directory cannot be written.
pub fn version(folder: &Path, config: &serde_json::Value, tensors: &[Named<'_>]) {
    std::fs::create_dir_all(folder).expect("a directory can be made");
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a file can be written");
    std::fs::write(folder.join("model.safetensors"), file(tensors)).expect("a file can be written");
}
