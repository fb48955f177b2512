//! An egress proxy as settings name it: its address, and its login by reference.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Reference;
use crate::net::egress::{ProxyAddress, ProxyCredentials, TunnelProxy};
use crate::sensitive::Sensitive;

/// An egress proxy and how we log in to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// Where it listens.
    pub address: ProxyAddress,
    /// Basic credentials (RFC 7617), where it wants any.
    pub login: Option<EgressLogin>,
}

/// Where the login of an egress proxy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressLogin {
    /// Read anew for each connection.
    Referenced {
        /// The user's name.
        username: Reference,
        /// The password.
        password: Reference,
    },
    /// `user:password`, as an `HTTPS_PROXY` of the environment states it.
    Stated(Sensitive),
}

impl EgressProxy {
    /// The proxy as connectors take it.
    pub fn tunnel_proxy(&self) -> TunnelProxy {
        let login = self.login.clone().map(|login| Arc::new(login) as Arc<dyn ProxyCredentials>);
        TunnelProxy { proxy: self.address.clone(), login }
    }
}

impl ProxyCredentials for EgressLogin {
    fn read(&self) -> Pin<Box<dyn Future<Output = Result<Sensitive, String>> + Send + '_>> {
        Box::pin(async move {
            let (username, password) = match self {
                Self::Stated(login) => return Ok(login.clone()),
                Self::Referenced { username, password } => (username, password),
            };
            let username = username.read().await.map_err(|error| error.to_string())?;
            let password = password.read().await.map_err(|error| error.to_string())?;
            if username.expose().contains(':') {
                return Err("its user name holds a colon, which Basic cannot carry".into());
            }
            Ok(Sensitive::new(format!("{}:{}", username.expose(), password.expose())))
        })
    }
}
