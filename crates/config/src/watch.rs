//! The file changes while the process runs: it is read again, and a change that holds still is offered.

use std::path::PathBuf;

use super::{Config, ConfigError, Overrides, read};

/// A configuration that is looked at again and again. What was read is compared, not times or inodes, so that a
/// Kubernetes ConfigMap, which is swapped by a symbolic link, is seen like an edited file.
#[derive(Debug)]
pub struct Watched {
    path: Option<PathBuf>,
    env: Vec<(String, String)>,
    overrides: Overrides,
    /// What was last applied or refused.
    settled: Content,
    /// What was there at the last look, where that was something else.
    seen: Option<Content>,
}

/// The file's bytes, or why it cannot be read.
type Content = Result<Vec<u8>, ConfigError>;

impl Watched {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn start(
        path: Option<PathBuf>,
        env: Vec<(String, String)>,
        overrides: Overrides,
    ) -> Result<(Config, Self), Vec<ConfigError>> {
        let mut watched = Self { path, env, overrides, settled: Ok(Vec::new()), seen: None };
        watched.settled = watched.look();
        let config = watched.parse()?;
        Ok((config, watched))
    }

    /// Looks once; call it about each second, off the serving threads (it reads a file of at most 1 MiB).
    ///
    /// `Some` once for each change: the new configuration, or why it is refused, while what runs goes on. Two looks in a
    /// row must find the same content, so that a file that is being written is not taken for a shorter one.
    pub fn changed(&mut self) -> Option<Result<Config, Vec<ConfigError>>> {
        self.path.as_ref()?;
        let now = self.look();
        if now == self.settled {
            self.seen = None;
            return None;
        }
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            return None;
        }
        self.seen = None;
        self.settled = now;
        Some(self.parse())
    }

    fn look(&self) -> Content {
        self.path.as_deref().map_or(Ok(Vec::new()), read)
    }

    fn parse(&self) -> Result<Config, Vec<ConfigError>> {
        let content = self.settled.as_ref().map_err(|error| vec![error.clone()])?;
        Config::parse(self.path.as_deref().map(|path| (path, &**content)), &self.env, &self.overrides)
    }
}
