//! Our generic tower layers; none knows what a token is.
