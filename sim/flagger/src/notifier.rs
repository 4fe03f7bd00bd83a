//! Alerts to chat services.

use std::time::Duration;

use canary::Dialect;
use http::{Method, Uri};
use program::Context;
use serde::Serialize;
use serde_json::json;

use crate::http::{call, json_headers};

/// The longest that a chat service may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A chat service, and how to post there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notifier {
    kind: Kind,
    url: String,
    username: String,
    channel: String,
    /// Signs requests, if there is one.
    token: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Slack,
    Discord,
    Rocket,
    Teams,
    GoogleChat,
}

/// What is posted.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// The Canary, `NAME.NAMESPACE`.
    pub canary: &'a str,
    /// The sentence.
    pub message: &'a str,
    /// Names and values shown below it.
    pub fields: &'a [(String, String)],
    /// Whether it is marked as a failure.
    pub error: bool,
}

#[derive(Serialize)]
struct Slack<'a> {
    channel: &'a str,
    username: &'a str,
    icon_url: &'a str,
    icon_emoji: &'a str,
    attachments: [Attachment<'a>; 1],
}

#[derive(Serialize)]
struct Attachment<'a> {
    color: &'a str,
    author_name: &'a str,
    text: &'a str,
    mrkdwn_in: [&'a str; 1],
    fields: Vec<Field<'a>>,
}

#[derive(Serialize)]
struct Field<'a> {
    title: &'a str,
    value: &'a str,
    short: bool,
}

impl Notifier {
    /// A service of the given type: `slack`, `discord`, `rocket`, `msteams`, and `gchat` in the newer
    /// dialect.
    ///
    /// # Errors
    /// Flagger's words for an unknown type, a bad URL, an empty name or channel.
    pub fn new(
        kind: &str,
        url: &str,
        username: &str,
        channel: &str,
        dialect: Dialect,
    ) -> Result<Self, String> {
        let (kind, name) = match kind {
            "slack" => (Kind::Slack, "Slack"),
            "discord" => (Kind::Discord, "Discord"),
            "rocket" => (Kind::Rocket, "Rocket"),
            "msteams" => (Kind::Teams, "MS Teams"),
            "gchat" if dialect == Dialect::Latest => (Kind::GoogleChat, "Google Chat"),
            other => return Err(format!("provider {other} not supported")),
        };
        let is_url = url.parse::<Uri>().is_ok_and(|uri| uri.host().is_some());
        let named = matches!(kind, Kind::Slack | Kind::Discord | Kind::Rocket);
        if !is_url {
            let hook = if named { "hook" } else { "webhook" };
            return Err(format!("invalid {name} {hook} URL {url}"));
        }
        if named && username.is_empty() {
            return Err(format!("empty {name} username"));
        }
        if named && channel.is_empty() {
            return Err(format!("empty {name} channel"));
        }
        let mut url = url.to_owned();
        if kind == Kind::Discord && !url.ends_with("/slack") {
            // Discord takes Slack's format there.
            url = format!("{}/slack", url.trim_end_matches('/'));
        }
        let (username, channel) = (username.to_owned(), channel.to_owned());
        Ok(Notifier { kind, url, username, channel, token: String::new() })
    }

    /// Signs requests with a bot's token (newer dialect).
    pub fn with_token(self, token: &str) -> Self {
        Notifier { token: token.to_owned(), ..self }
    }

    /// The body to post.
    pub fn body(&self, notice: &Notice<'_>) -> String {
        let colors = match self.kind {
            Kind::Slack | Kind::Discord => ["good", "danger"],
            Kind::Rocket => ["#0076D7", "#FF0000"],
            Kind::Teams | Kind::GoogleChat => ["0076D7", "FF0000"],
        };
        let color = colors[usize::from(notice.error)];
        let strong = |text: &str| format!("<font color=#848484><strong>{text}</strong></font>");
        let paragraph = |text: String| json!({"widgets": [{"textParagraph": {"text": text}}]});
        match self.kind {
            Kind::Slack | Kind::Discord | Kind::Rocket => {
                let fields = notice.fields.iter();
                let payload = Slack {
                    channel: &self.channel,
                    username: &self.username,
                    icon_url: "",
                    icon_emoji: ":rocket:",
                    attachments: [Attachment {
                        color,
                        author_name: notice.canary,
                        text: notice.message,
                        mrkdwn_in: ["text"],
                        fields: fields.map(|(title, value)| Field { title, value, short: false }).collect(),
                    }],
                };
                serde_json::to_string(&payload).expect("a message is always JSON")
            }
            Kind::Teams => {
                let facts = notice.fields.iter().map(|(name, value)| json!({"name": name, "value": value}));
                json!({
                    "@type": "MessageCard",
                    "@context": "http://schema.org/extensions",
                    "themeColor": color,
                    "summary": notice.canary,
                    "sections": [{
                        "activityTitle": notice.message,
                        "activitySubtitle": notice.canary,
                        "facts": facts.collect::<Vec<_>>(),
                    }],
                })
                .to_string()
            }
            Kind::GoogleChat => {
                let mut sections = vec![paragraph(strong(notice.message))];
                let fields = notice.fields.iter();
                sections
                    .extend(fields.map(|(name, value)| paragraph(format!("{name}<br>{}", strong(value)))));
                json!({"cards": [{
                    "header": {
                        "title": "Flagger",
                        "subtitle": notice.canary,
                        "imageUrl": "https://flagger.app/favicon.png",
                    },
                    "sections": sections,
                }]})
                .to_string()
            }
        }
    }

    /// Posts a notice.
    ///
    /// # Errors
    /// Flagger's words for an unreachable service or a refusal: anything but 200 in the older dialect, but
    /// 2xx in the newer.
    pub async fn post(&self, context: &Context, notice: &Notice<'_>, dialect: Dialect) -> Result<(), String> {
        let body = self.body(notice);
        let mut headers = json_headers();
        if let Ok(token) = http::HeaderValue::try_from(format!("Bearer {}", self.token))
            && !self.token.is_empty()
        {
            headers.insert(http::header::AUTHORIZATION, token);
        }
        let answer = call(context, Method::POST, &self.url, headers, body, TIMEOUT).await;
        match (answer, dialect) {
            (Ok(answer), Dialect::Rc1) if answer.status != 200 => {
                Err(format!("sending notification failed {}", answer.body))
            }
            (Ok(answer), Dialect::Latest) if !answer.status.is_success() => {
                let (code, body) = (answer.status.as_u16(), answer.body);
                Err(format!("postMessage failed: sending notification bad response {code}: {body}"))
            }
            (Ok(_), _) => Ok(()),
            (Err(error), Dialect::Rc1) => Err(format!("sending notification failed {error}")),
            (Err(error), Dialect::Latest) => {
                Err(format!("postMessage failed: sending notification failed to send: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_flaggers() {
        let fields = [("Target".to_owned(), "Deployment/podinfo.test".to_owned())];
        let notice = Notice { canary: "podinfo.test", message: "m", fields: &fields, error: true };
        let new = |kind: &str, channel: &str| {
            Notifier::new(kind, "https://hooks.example/a", "flagger", channel, Dialect::Rc1)
        };
        assert_eq!(
            new("slack", "general").unwrap().body(&notice),
            "{\"channel\":\"general\",\"username\":\"flagger\",\"icon_url\":\"\",\"icon_emoji\":\":rocket:\",\
             \"attachments\":[{\"color\":\"danger\",\"author_name\":\"podinfo.test\",\"text\":\"m\",\
             \"mrkdwn_in\":[\"text\"],\"fields\":[{\"title\":\"Target\",\
             \"value\":\"Deployment/podinfo.test\",\"short\":false}]}]}"
        );
        assert_eq!(new("discord", "general").unwrap().url, "https://hooks.example/a/slack");
        let teams = new("msteams", "").unwrap().body(&notice);
        assert!(teams.contains("\"themeColor\":\"FF0000\""), "{teams}");
        assert_eq!(new("slack", ""), Err("empty Slack channel".to_owned()));
        assert_eq!(new("gchat", ""), Err("provider gchat not supported".to_owned()));
    }
}
