//! Whose data a request is about.
