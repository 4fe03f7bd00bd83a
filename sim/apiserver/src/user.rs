//! Who asks.

/// An authenticated user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, e.g. `kubernetes-admin` or `system:serviceaccount:test:default`.
    pub name: String,
    /// The groups, e.g. `system:masters`, whose members may do everything.
    pub groups: Vec<String>,
}

/// The group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of everybody who is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";

impl User {
    /// A user who may do everything.
    pub fn administrator(name: &str) -> User {
        User { name: name.to_owned(), groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()] }
    }

    /// The user that a ServiceAccount's token stands for.
    pub fn service_account(namespace: &str, name: &str) -> User {
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.to_owned(),
            ],
        }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }
}
