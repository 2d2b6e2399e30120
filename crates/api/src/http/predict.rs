//! `POST /models/{model}/predict`: named fields in, named answers out.

pub mod view;
