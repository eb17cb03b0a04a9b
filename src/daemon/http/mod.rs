//! The page, the metrics and the API.
