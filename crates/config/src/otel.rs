//! The variables of OpenTelemetry, as its specification names them: where traces go, which, and who tells them.
//!
//! An empty variable is as one that is not set. One of `OTEL_EXPORTER_OTLP_TRACES_…` wins over the same without `TRACES_`.

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sluicegate_outbound::{Address, Secret};

use super::error::ConfigError;

/// What they all begin with.
pub const PREFIX: &str = "OTEL_";

/// The name under which the gateway tells of itself where none is set.
pub const SERVICE: &str = "sluicegate";

/// Most spans that may wait to be sent: some hundred megabytes.
const MOST: usize = 1 << 20;

/// What they say.
#[derive(Clone, Debug, PartialEq)]
pub struct Otel {
    /// `service.name`, in traces and in the log.
    pub service: String,
    /// Further attributes of the process.
    pub attributes: Vec<(String, String)>,
    /// Where traces go; `None` where nobody is named.
    pub traces: Option<Traces>,
}

impl Default for Otel {
    fn default() -> Self {
        Self { service: SERVICE.to_owned(), attributes: Vec::new(), traces: None }
    }
}

/// Where traces go, which, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The receiver; over HTTP with the path that spans are sent to.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// Sent with everything; often keys.
    pub headers: Vec<(String, Secret)>,
    /// How long to try to send what is sent at once.
    pub timeout: Duration,
    /// Which requests are traced.
    pub sampler: Sampler,
    /// Most spans that wait to be sent.
    pub queue: usize,
    /// Most spans that are sent at once.
    pub batch: usize,
    /// How long a span waits for others to be sent with.
    pub delay: Duration,
}

/// A form of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Over HTTP/2.
    Grpc,
    /// Over HTTP/1.1.
    Http,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a caller that has decided is followed.
    pub follows_parent: bool,
    /// The part of all others, from 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    /// Decides about a trace, whose number is as good as drawn: everybody who goes by this ratio decides the same.
    pub fn takes(&self, trace: u128, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(sampled) => sampled,
            // The last 63 bits, as the SDKs have it. A float near 2^63 skips numbers, so that they are compared as whole ones.
            None => ((trace as u64) >> 1) < (self.ratio * (1u64 << 63) as f64) as u64,
        }
    }
}

/// Reads them. What is wrong is an error that names its variable.
pub(super) fn read(env: &[(String, String)], errors: &mut Vec<ConfigError>) -> Otel {
    let mut variables = Variables { env, errors };
    let mut otel = Otel::default();
    for (name, value) in variables.pairs("OTEL_RESOURCE_ATTRIBUTES") {
        match &*name {
            "service.name" => otel.service = value,
            _ => otel.attributes.push((name, value)),
        }
    }
    if let Some(name) = variables.get("OTEL_SERVICE_NAME") {
        name.clone_into(&mut otel.service);
    }
    let disabled = variables.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let exporter = variables.one_of("OTEL_TRACES_EXPORTER", &[("otlp", true), ("none", false)]).unwrap_or(true);
    let traces = variables.traces();
    otel.traces = traces.filter(|_| exporter && !disabled);
    otel
}

struct Variables<'a> {
    env: &'a [(String, String)],
    errors: &'a mut Vec<ConfigError>,
}

impl<'a> Variables<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.env.iter().find(|(key, _)| key == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// The variable of traces, or that of all signals.
    fn otlp(&self, what: &str) -> Option<(String, &'a str)> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn refuse(&mut self, name: &str, expected: &str, got: &str) {
        self.errors.push(ConfigError::new(name, format!("expected {expected}, got `{got}`")));
    }

    fn one_of<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let got = self.get(name)?;
        let found = words.iter().find(|(word, _)| *word == got).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(name, &format!("one of {}", known.join(", ")), got);
        }
        found
    }

    fn number<T: FromStr + PartialOrd>(&mut self, name: &str, (least, most): (T, T), expected: &str) -> Option<T> {
        let got = self.get(name)?;
        let number = got.parse().ok().filter(|number| *number >= least && *number <= most);
        if number.is_none() {
            self.refuse(name, expected, got);
        }
        number
    }

    fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        self.number(name, (1, 3_600_000), "milliseconds from 1 to 3600000").map(Duration::from_millis)
    }

    /// `key=value,key=value`, with `%2C` for what stands between.
    fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for pair in self.get(name).unwrap_or_default().split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().ok().map(String::from);
            match pair.split_once('=').and_then(|(key, value)| Some((decoded(key)?, decoded(value)?))) {
                Some((key, value)) if !key.is_empty() => pairs.push((key, value)),
                // Values of headers are secrets.
                _ => self.refuse(name, "a list as `key=value,key=value`", "a part that is no `key=value`"),
            }
        }
        pairs
    }

    fn sampler(&mut self) -> Sampler {
        let ratio = self.number("OTEL_TRACES_SAMPLER_ARG", (0.0, 1.0), "a part from 0 to 1, as 0.01").unwrap_or(1.0);
        let sampler = |follows_parent, ratio| Sampler { follows_parent, ratio };
        let samplers = [
            ("parentbased_always_on", sampler(true, 1.0)),
            ("parentbased_always_off", sampler(true, 0.0)),
            ("parentbased_traceidratio", sampler(true, ratio)),
            ("always_on", sampler(false, 1.0)),
            ("always_off", sampler(false, 0.0)),
            ("traceidratio", sampler(false, ratio)),
        ];
        self.one_of("OTEL_TRACES_SAMPLER", &samplers).unwrap_or(sampler(true, 1.0))
    }

    fn address(&mut self, protocol: Protocol) -> Option<Address> {
        let (name, text) = self.otlp("ENDPOINT")?;
        match text.parse::<Address>() {
            // That of all signals is a base, over HTTP.
            Ok(base) if protocol == Protocol::Http && !name.contains("TRACES") => Some(base.below("/v1/traces")),
            Ok(address) => Some(address),
            Err(error) => {
                let expected = "expected the address of a receiver of OTLP, as `http://localhost:4318`";
                self.errors.push(ConfigError::new(name, format!("{expected}: {}", error.message())));
                None
            }
        }
    }

    fn headers(&mut self) -> Vec<(String, Secret)> {
        let Some((name, _)) = self.otlp("HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for (key, value) in self.pairs(&name) {
            let is_name = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte));
            if is_name && value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                headers.push((key.to_ascii_lowercase(), Secret::new(&value)));
            } else {
                self.refuse(&name, "names and values of headers", "letters that a header cannot have");
            }
        }
        headers
    }

    fn traces(&mut self) -> Option<Traces> {
        let protocols = [("grpc", Protocol::Grpc), ("http/protobuf", Protocol::Http)];
        let protocol = self.otlp("PROTOCOL").and_then(|(name, _)| self.one_of(&name, &protocols)).unwrap_or(Protocol::Http);
        let timeout = self.otlp("TIMEOUT").and_then(|(name, _)| self.milliseconds(&name));
        let size = "a number of spans from 1 to 1048576";
        let queue = self.number("OTEL_BSP_MAX_QUEUE_SIZE", (1, MOST), size).unwrap_or(2048);
        let batch = self.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", (1, MOST), size).unwrap_or(512);
        Some(Traces {
            protocol,
            headers: self.headers(),
            timeout: timeout.or_else(|| self.milliseconds("OTEL_BSP_EXPORT_TIMEOUT")).unwrap_or(Duration::from_secs(10)),
            sampler: self.sampler(),
            queue,
            batch: batch.min(queue),
            delay: self.milliseconds("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(Duration::from_secs(5)),
            address: self.address(protocol)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reads(variables: &[(&str, &str)]) -> Result<Otel, Vec<String>> {
        let env: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut errors = Vec::new();
        let otel = read(&env, &mut errors);
        if errors.is_empty() { Ok(otel) } else { Err(errors.iter().map(ToString::to_string).collect()) }
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

    fn traces(variables: &[(&str, &str)]) -> Traces {
        reads(&[&[ENDPOINT], variables].concat()).expect("good variables").traces.expect("an endpoint")
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert_eq!(reads(&[]), Ok(Otel::default()));
        assert_eq!(reads(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(Otel::default()), "an empty one is none");
        for off in [("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(reads(&[ENDPOINT, off]), Ok(Otel::default()), "{off:?}");
        }
    }

    #[test]
    fn what_is_not_set_is_as_the_specification_has_it() {
        let Traces { address, protocol, headers, timeout, sampler, queue, batch, delay } = traces(&[]);
        assert_eq!(Ok(address), "http://collector:4318/v1/traces".parse::<Address>().map_err(|_| ()));
        assert_eq!((protocol, headers, timeout), (Protocol::Http, Vec::new(), Duration::from_secs(10)));
        assert_eq!((queue, batch, delay), (2048, 512, Duration::from_secs(5)));
        assert_eq!(sampler, Sampler { follows_parent: true, ratio: 1.0 });
    }

    #[test]
    fn what_is_set_for_traces_alone_wins_and_is_taken_as_it_is() {
        let own = traces(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example.org/otlp"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=s3cret%2C%20too, tenant = a"),
        ]);
        assert_eq!(Ok(own.address.clone()), "https://traces.example.org/otlp".parse::<Address>().map_err(|_| ()));
        assert_eq!(own.timeout, Duration::from_millis(1500));
        let headers = [("x-key".to_owned(), Secret::new("s3cret, too")), ("tenant".to_owned(), Secret::new("a"))];
        assert_eq!(own.headers, headers);
        assert!(!format!("{own:?}").contains("s3cret"));
        let grpc = traces(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(Ok(grpc.address), "http://collector:4318".parse::<Address>().map_err(|_| ()), "a path is HTTP's alone");
    }

    #[test]
    fn who_tells_is_named() {
        let named = reads(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=test%2Fb")]).expect("good");
        assert_eq!(named.service, "a");
        assert_eq!(named.attributes, [("deployment.environment.name".to_owned(), "test/b".to_owned())]);
        let both = reads(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"), ("OTEL_SERVICE_NAME", "b")]).expect("good");
        assert_eq!(both.service, "b");
    }

    #[test]
    fn what_is_wrong_is_told_with_the_variable_and_what_was_expected() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "expected one of grpc, http/protobuf, got `http/json`"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "expected the address of a receiver of OTLP"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "expected milliseconds from 1 to 3600000, got `10s`"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret", "expected a list as `key=value,key=value`"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0As3cret", "expected names and values of headers"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "expected one of parentbased_always_on"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5", "expected a part from 0 to 1, as 0.01, got `1.5`"),
            ("OTEL_TRACES_SAMPLER_ARG", "NaN", "expected a part from 0 to 1"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "expected one of otlp, none, got `zipkin`"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "expected a number of spans from 1 to 1048576, got `0`"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", "expected milliseconds"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "expected a list as"),
        ] {
            let errors = reads(&[(name, value)]).expect_err(name);
            assert!(errors.len() == 1 && errors[0].starts_with(&format!("{name}: {says}")), "{errors:?}");
            assert!(!errors[0].contains("s3cret"), "{errors:?}");
        }
    }

    #[test]
    fn a_caller_that_has_decided_is_followed() {
        let sampler = |name, arg| traces(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", arg)]).sampler;
        let (low, high) = (1u128, u128::MAX);
        let none = sampler("parentbased_traceidratio", "0");
        assert!(!none.takes(low, None) && none.takes(high, Some(true)) && !none.takes(low, Some(false)));
        let half = sampler("traceidratio", "0.5");
        assert!(half.takes(low, Some(false)) && !half.takes(high, Some(true)));
        assert!(sampler("always_on", "0").takes(high, Some(false)));
        assert!(!sampler("always_off", "1").takes(low, Some(true)));
        assert!(sampler("parentbased_always_on", "0").takes(high, None));
        assert!(!sampler("parentbased_always_off", "1").takes(low, None));
    }

    proptest! {
        #[test]
        fn who_takes_a_part_takes_what_a_smaller_part_takes(trace: u128, small in 0.0..=1.0f64, more in 0.0..=1.0f64) {
            let takes = |ratio: f64| Sampler { follows_parent: true, ratio }.takes(trace, None);
            prop_assert!(!takes(small) || takes((small + more).min(1.0)));
            prop_assert!(takes(1.0) && !takes(0.0));
        }

        #[test]
        fn no_list_makes_reading_fail_badly(text in "[a-z=,% 0-9]{0,30}") {
            let _ = reads(&[("OTEL_RESOURCE_ATTRIBUTES", &text), ("OTEL_EXPORTER_OTLP_HEADERS", &text), ENDPOINT]);
        }
    }
}
