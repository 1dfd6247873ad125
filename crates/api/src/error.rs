//! The one table from what went wrong to HTTP statuses.
