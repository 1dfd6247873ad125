//! From spanset pipelines to answers, on columns.
//!
//! ```text
//!   Pipeline --SpansetPlan::new--> SpansetPlan          Expr --Operand::new--> Operand
//!                   |  writes what it needs into  Layout  <--  |
//!                   v                               v request
//!               selected(batch)  <----------  ColumnBatch  ------->  coded(..), numbers(..)
//! ```
//!
//! Search and metrics plan into one [`Layout`], ask sources for what it holds, and evaluate on every
//! batch that comes back. All of it works on whole batches: sets of rows, a code per row, a table per
//! code; only what no column kernel can say is evaluated row by row.
#![allow(dead_code, unused_imports, reason = "metrics will use what search does not")]

mod aggregate;
pub(crate) mod explain;
mod exposed;
mod filter;
mod formula;
mod frame;
mod layout;
mod operand;
mod pipeline;
mod relation;
mod spansets;
mod values;

pub(crate) use exposed::Exposed;
pub(crate) use frame::Frame;
pub(crate) use layout::Layout;
pub(crate) use operand::{Meaning, Operand};
pub(crate) use pipeline::SpansetPlan;
pub(crate) use spansets::Described;
pub(crate) use values::{Coded, Numbers};
