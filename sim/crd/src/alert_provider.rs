//! AlertProvider (`flagger.app/v1beta1`): where alerts are sent.

use serde_json::Value;

use crate::canary::LocalReference;
use crate::version::FlaggerVersion;
use crate::wire::{object, wire};

object! {
    /// A chat service that takes alerts.
    struct AlertProvider("AlertProvider", "alertproviders", "flagger.app", FlaggerVersion) {
        spec: AlertProviderSpec, status: Value,
    }
}

wire! {
    /// The chat service.
    struct AlertProviderSpec {
        required {
            /// `slack`, `msteams`, `rocket`, `discord`, and `gchat` in later releases.
            #[serde(rename = "type")]
            kind: String,
        }
        optional {
            /// The channel.
            channel: String,
            /// The name to post under.
            username: String,
            /// The hook's URL.
            address: String,
            /// A proxy on the way there.
            proxy: String,
            /// A Secret with the key `address`.
            secret_ref: Option<LocalReference>,
        }
    }
}
