//! What people and programs see: tables, words and colours for the one, JSON of the schema `muster.v1` for the other.

pub mod json;
pub mod paint;
pub mod table;
pub mod words;
