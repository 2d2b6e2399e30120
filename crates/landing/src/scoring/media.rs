//! What a body is and what its answer is to be: JSON or CSV.

use sluicegate_core::{Code, Error, Result};

/// A media type of these routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `text/csv`
    Csv {
        /// Whether its first line has the names of the columns.
        header: bool,
    },
}

impl Media {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv { .. } => "text/csv",
        }
    }

    /// What the body is, by its `content-type`; JSON where that is not said.
    ///
    /// # Errors
    /// [`Code::UnsupportedMedia`].
    pub fn sent(content_type: Option<&str>) -> Result<Self> {
        let Some(sent) = content_type else { return Ok(Self::Json) };
        let refuse = |why: &str| {
            let known = "expected application/json, or text/csv, with header=absent where its first line is a row";
            Err(Error::new(Code::UnsupportedMedia, format!("content-type is `{sent}`{why}; {known}")))
        };
        let mut parts = sent.split(';').map(str::trim);
        let mut media = match parts.next().unwrap_or_default() {
            json if json.eq_ignore_ascii_case("application/json") => Self::Json,
            csv if csv.eq_ignore_ascii_case("text/csv") => Self::Csv { header: true },
            _ => return refuse(""),
        };
        for (key, value) in parts.filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))) {
            let value = value.trim_matches('"');
            match (key.to_ascii_lowercase().as_str(), &mut media) {
                ("charset", _) if value.eq_ignore_ascii_case("utf-8") => {}
                ("charset", _) => return refuse(": only UTF-8 is read"),
                ("header", Self::Csv { header }) if ["present", "absent"].contains(&value) => *header = value == "present",
                _ => return refuse(&format!(": `{key}` is not known")),
            }
        }
        Ok(media)
    }

    /// What the answer is to be, by its lists of `accept`: the first of both that the caller lists and does not weigh with zero.
    ///
    /// # Errors
    /// [`Code::NotAcceptable`].
    pub fn wanted(lists: &[&str]) -> Result<Self> {
        let mut ranges =
            lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|range| !range.is_empty()).peekable();
        if ranges.peek().is_none() {
            return Ok(Self::Json);
        }
        let found = ranges.find_map(|range| {
            let (range, weight) = range.split_once(';').unwrap_or((range, ""));
            let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
            match range.trim().to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" if !refused => Some(Self::Json),
                "text/csv" | "text/*" if !refused => Some(Self::Csv { header: false }),
                _ => None,
            }
        });
        found.ok_or_else(|| {
            let expected = "expected application/json or text/csv";
            Error::new(Code::NotAcceptable, format!("accept is `{}`, {expected}", lists.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_or_csv_and_all_else_is_named() {
        let sent = |value| Media::sent(Some(value)).map_err(|error| error.code());
        assert_eq!(Media::sent(None).ok(), Some(Media::Json));
        assert_eq!(sent("application/json; charset=UTF-8"), Ok(Media::Json));
        assert_eq!(sent("Text/CSV"), Ok(Media::Csv { header: true }));
        assert_eq!(sent("text/csv; header=absent; charset=utf-8"), Ok(Media::Csv { header: false }));
        for bad in
            ["application/x-npy", "text/csv; charset=latin-1", "text/csv; header=no", "application/json; header=absent", ""]
        {
            assert_eq!(sent(bad), Err(Code::UnsupportedMedia), "{bad}");
        }
    }

    #[test]
    fn the_answer_is_what_the_caller_accepts() {
        let wanted = |value| Media::wanted(&[value]).map_err(|error| error.code());
        assert_eq!(Media::wanted(&[]).ok(), Some(Media::Json));
        assert_eq!(wanted("*/*"), Ok(Media::Json));
        assert_eq!(wanted("text/csv, application/json"), Ok(Media::Csv { header: false }));
        assert_eq!(wanted("text/csv;q=0, application/json"), Ok(Media::Json));
        assert_eq!(wanted("application/x-recordio"), Err(Code::NotAcceptable));
    }
}
