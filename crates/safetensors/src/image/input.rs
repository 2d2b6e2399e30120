//! Of which size a picture is: `preprocessor_config.json` says it, else `config.json`.

use std::path::Path;

use serde::Deserialize;
use sluicegate_core::Result;
use sluicegate_text::files::{parse, read_if_any, refused};

const PREPROCESSOR: &str = "preprocessor_config.json";

/// What the nets were trained on, where neither file says anything.
const UNSAID: usize = 224;

/// Longest side of a picture, and most channels.
const LONGEST: usize = 2048;
const MOST_CHANNELS: usize = 64;

/// Longest list of numbers that is repeated in a description.
const SHOWN: usize = 4;

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Size {
    Both(usize),
    Sides { height: usize, width: usize },
    Shortest { shortest_edge: usize },
    List([usize; 2]),
}

impl Size {
    /// Height and width.
    pub(super) fn sides(self) -> (usize, usize) {
        match self {
            Self::Both(side) | Self::Shortest { shortest_edge: side } => (side, side),
            Self::Sides { height, width } | Self::List([height, width]) => (height, width),
        }
    }
}

/// A list where there is one, and anything else that stands in its place.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Numbers {
    List(Vec<f64>),
    #[allow(dead_code, reason = "it is taken, and not read")]
    Other(serde::de::IgnoredAny),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Preprocessor {
    size: Option<Size>,
    crop_size: Option<Size>,
    do_center_crop: Option<bool>,
    image_mean: Option<Numbers>,
    image_std: Option<Numbers>,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default = "three")]
    num_channels: usize,
    #[serde(default)]
    image_size: Option<Size>,
}

fn three() -> usize {
    3
}

/// What comes in.
pub(super) struct Input {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// How a picture becomes these numbers, in words.
    pub(super) about: String,
}

impl Input {
    pub(super) fn load(folder: &Path, config: &[u8]) -> Result<Self> {
        let config: Config = parse("config.json", config)?;
        let said: Preprocessor = read_if_any(folder, PREPROCESSOR)?.unwrap_or_default();
        let cropped = said.crop_size.filter(|_| said.do_center_crop != Some(false));
        let size = cropped.or(said.size).or(config.image_size);
        let (height, width) = size.map_or((UNSAID, UNSAID), Size::sides);
        let channels = config.num_channels;
        if ![height, width].iter().all(|side| (1..=LONGEST).contains(side)) || !(1..=MOST_CHANNELS).contains(&channels) {
            let expected = format!("expected sides of 1 to {LONGEST} and 1 to {MOST_CHANNELS} channels");
            return Err(refused(format!("pictures of {channels} channels, {height} by {width}: {expected}")));
        }
        let list = |numbers: Option<Numbers>| match numbers {
            Some(Numbers::List(list)) if list.len() <= SHOWN => Some(list),
            _ => None,
        };
        let about = match (list(said.image_mean), list(said.image_std)) {
            (Some(mean), Some(std)) => format!("numbers from 0 to 1, less the mean {mean:?}, divided by {std:?}"),
            _ => "numbers as the model was trained on".into(),
        };
        Ok(Self { channels, height, width, about: format!("channels of pixels: {about}") })
    }
}
