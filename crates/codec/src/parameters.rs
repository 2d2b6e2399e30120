//! The parameters of the protocol, one list for every transport: those that mean something, those that are refused.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use sluicegate_core::{Code, Error, Result};

use super::elements::{Name, Scalar};

/// The parameters of a request, of an input or of an output that mean something here. Others are for models and routers,
/// and pass.
#[derive(Debug, Default)]
pub struct Parameters {
    /// Bytes of an input's raw elements.
    pub binary_data_size: Option<u64>,
    /// Whether an output's elements are to be raw.
    pub binary_data: Option<bool>,
    /// The same for outputs that do not say.
    pub binary_data_output: Option<bool>,
    /// How many classes of an output are wanted, instead of its elements.
    pub classification: Option<u64>,
    /// 0 is the default, 1 the most urgent.
    pub priority: Option<u64>,
    timeout: Option<u64>,
    /// The first one that is not served.
    unserved: Option<&'static str>,
}

/// Parameters of the protocol that nothing here honours: better refused than ignored.
const UNSERVED: [&str; 5] = ["sequence_id", "sequence_start", "sequence_end", "shared_memory_region", "shared_memory_byte_size"];

impl Parameters {
    /// Takes one in.
    ///
    /// # Errors
    /// Why it cannot be taken: it has another type than it must have, or a name that is reserved.
    pub fn take(&mut self, key: &str, value: Scalar<'_>) -> Result<(), String> {
        let place = match key {
            "binary_data" => return flag(key, value).and_then(|flag| once(&mut self.binary_data, key, flag)),
            "binary_data_output" => return flag(key, value).and_then(|flag| once(&mut self.binary_data_output, key, flag)),
            "binary_data_size" => &mut self.binary_data_size,
            "classification" => &mut self.classification,
            "priority" => &mut self.priority,
            "timeout" => &mut self.timeout,
            key if key.starts_with("triton_") => return Err(format!("parameter `{key}`: the prefix `triton_` is reserved")),
            key => {
                // What clients send by default, and what asks for nothing.
                let asks = !matches!(value, Scalar::Bool(false) | Scalar::Int(0) | Scalar::Uint(0) | Scalar::Text(""));
                let unserved = UNSERVED.into_iter().find(|&name| asks && name == key);
                self.unserved = self.unserved.or(unserved);
                return Ok(());
            }
        };
        let number = match value {
            Scalar::Uint(number) => Some(number),
            Scalar::Int(number) => u64::try_from(number).ok(),
            Scalar::Bool(_) | Scalar::Float(_) | Scalar::Text(_) | Scalar::Raw(_) | Scalar::Special(_) => None,
        };
        let number = number.ok_or_else(|| format!("parameter `{key}` is {value}, expected a whole number of 0 or more"))?;
        once(place, key, number)
    }

    /// How long the caller is willing to wait; 0 leaves that to the operator.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.filter(|&timeout| timeout > 0).map(Duration::from_micros)
    }

    /// Refuses what is not served of a request or an input.
    ///
    /// # Errors
    /// [`Code::Unsupported`].
    pub fn served(&self) -> Result<()> {
        if self.classification.is_some_and(|count| count > 0) {
            let message = "parameter `classification` is one of an output, and not of a request or an input";
            return Err(Error::new(Code::Unsupported, message));
        }
        self.served_of_output()
    }

    /// Refuses what is not served of an output.
    ///
    /// # Errors
    /// [`Code::Unsupported`].
    pub fn served_of_output(&self) -> Result<()> {
        match self.unserved {
            None => Ok(()),
            Some(name) => {
                Err(Error::new(Code::Unsupported, format!("parameter `{name}` asks for something that is not served here")))
            }
        }
    }
}

/// Two readers of a body in which it is there twice could go by the first and by the last.
fn once<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("parameter `{key}` is there twice")),
    }
}

fn flag(key: &str, value: Scalar<'_>) -> Result<bool, String> {
    match value {
        Scalar::Bool(flag) => Ok(flag),
        other => Err(format!("parameter `{key}` is {other}, expected true or false")),
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut parameters = Parameters::default();
                while let Some(Name(key)) = map.next_key()? {
                    map.next_value_seed(Take { parameters: &mut parameters, key: &key })?;
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// Reads the value of one.
struct Take<'a> {
    parameters: &'a mut Parameters,
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for Take<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Take<'_> {
    fn put<E: de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        self.parameters.take(self.key, value).map_err(E::custom)
    }

    fn none<E: de::Error>(&self) -> E {
        E::custom(format!("parameter `{}` is no string, number or boolean", self.key))
    }
}

impl<'de> Visitor<'de> for Take<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or a boolean")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<(), E> {
        self.put(Scalar::Bool(flag))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.put(Scalar::Int(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.put(Scalar::Uint(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.put(Scalar::Float(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.put(Scalar::Text(text))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(self.none())
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.none())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(self.none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(parameters: &[(&str, Scalar<'_>)]) -> Result<Parameters, String> {
        let mut all = Parameters::default();
        parameters.iter().try_for_each(|(key, value)| all.take(key, *value)).map(|()| all)
    }

    #[test]
    fn both_kinds_of_integers_are_taken_and_nothing_else_passes_for_one() {
        for (value, expected) in [(Scalar::Int(5), Some(5)), (Scalar::Uint(5), Some(5)), (Scalar::Int(-1), None)] {
            assert_eq!(taken(&[("priority", value)]).ok().and_then(|all| all.priority), expected);
        }
        for key in ["priority", "timeout", "classification", "binary_data_size"] {
            assert!(taken(&[(key, Scalar::Float(1.0))]).expect_err("no integer").contains(key));
        }
        assert!(taken(&[("binary_data", Scalar::Int(1))]).is_err());
        assert_eq!(taken(&[("timeout", Scalar::Int(0))]).expect("the default").timeout(), None);
    }

    #[test]
    fn what_asks_for_something_that_is_not_served_is_named() {
        let refusal = |key, value| taken(&[(key, value)]).expect("readable").served().err();
        for (key, value) in [
            ("sequence_id", Scalar::Text("a")),
            ("sequence_id", Scalar::Uint(1)),
            ("sequence_start", Scalar::Bool(true)),
            ("shared_memory_region", Scalar::Text("r")),
        ] {
            let error = refusal(key, value).expect("refused");
            assert!(error.code() == Code::Unsupported && error.message().contains(key), "{error}");
        }
        for (key, value) in [
            ("sequence_id", Scalar::Text("")),
            ("sequence_id", Scalar::Uint(0)),
            ("sequence_end", Scalar::Bool(false)),
            ("mine", Scalar::Text("x")),
            ("headers", Scalar::Text("x")),
        ] {
            assert!(refusal(key, value).is_none(), "{key} {value}");
        }
    }
}
