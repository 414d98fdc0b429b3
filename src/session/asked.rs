//! What the query of `GET /ws` asks for: what a device says of itself.

use crate::event::Meta;
use crate::ids::DeviceType;
use crate::problem::Problem;
use crate::secret::has_token;

/// As the contract bounds what a device says of itself.
const MAX_META: usize = 16;
const MAX_META_KEY: usize = 64;
const MAX_META_VALUE: usize = 256;

/// What the query asks for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub device_type: Option<DeviceType>,
    pub meta: Meta,
}

impl Asked {
    pub(crate) fn parse(query: &str) -> Result<Self, Problem> {
        const KNOWN: &[&str] = &["device_type", "meta.KEY", "resume"];
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
            .map_err(|_| Problem::bad_request("the query is not of the form name=value&name=value"))?;
        let mut asked = Self::default();
        for (name, value) in pairs {
            if has_token(&name) || has_token(&value) || name == "token" || name == "access_token" {
                return Err(Problem::bad_request(
                    "a token in a URL ends in logs: send `Authorization: Bearer TOKEN`, or offer the \
                     subprotocols `lastpong.v1, token.TOKEN`",
                ));
            }
            if let Some(key) = name.strip_prefix("meta.") {
                asked.add_meta(&name, key, value)?;
            } else if name == "device_type" {
                let parsed = value.parse();
                let parsed = parsed.map_err(|_| {
                    Problem::bad_input("device_type", &value, "1 to 128 of A-Z a-z 0-9 . _ : @ -")
                })?;
                if asked.device_type.replace(parsed).is_some() {
                    return Err(Problem::bad_input("device_type", &value, "once"));
                }
            } else if name != "resume" {
                return Err(Problem::unknown_parameter(&name, KNOWN));
            }
        }
        Ok(asked)
    }

    fn add_meta(&mut self, name: &str, key: &str, value: String) -> Result<(), Problem> {
        if key.is_empty() || key.len() > MAX_META_KEY {
            return Err(Problem::bad_input(name, &value, "a key of 1 to 64 bytes after meta."));
        }
        if value.len() > MAX_META_VALUE {
            return Err(Problem::bad_input(name, &value, "a value of at most 256 bytes"));
        }
        if self.meta.insert(key.to_owned(), value).is_some() {
            return Err(Problem::bad_input(name, "", "once"));
        }
        if self.meta.len() > MAX_META {
            return Err(Problem::bad_input(name, "", "at most 16 keys"));
        }
        Ok(())
    }
}
