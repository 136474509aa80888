//! Tests of the API server's client side against a scripted HTTP service.

mod calls;
mod connection;
mod feed;
mod followed;
mod kubeconfig;
mod server;
mod services;
