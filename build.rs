//! The embedded migrations are read at compile time, where cargo does not see them change.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
