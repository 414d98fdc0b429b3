//! Words that come again and again (devices, nodes, reasons), each kept once.

use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

#[derive(Debug, Default)]
pub struct Names {
    known: HashMap<Box<str>, Name>,
    texts: Vec<Box<str>>,
}

impl Names {
    pub fn of(&mut self, text: &str) -> Name {
        if let Some(name) = self.known.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("fewer words than 2^32"));
        self.texts.push(text.into());
        self.known.insert(text.into(), name);
        name
    }

    pub fn known(&self, text: &str) -> Option<Name> {
        self.known.get(text).copied()
    }

    pub fn text(&self, name: Name) -> &str {
        &self.texts[name.0 as usize]
    }
}
