//! Tools in the body of a chat request: functions on offer, earlier calls and their results.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::openai::Fields;
use crate::types::{Callee, Json, Tool, ToolCall, ToolChoice, ToolResult, Tools, function_name};

/// Where the OpenAI API puts its limit.
const MAX_TOOLS: usize = 128;

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`, and from the messages what was called.
pub(super) fn tools(fields: &Fields, messages: &[Value]) -> Result<Tools, ApiError> {
    let values = fields.array("tools")?.unwrap_or_default();
    if values.len() > MAX_TOOLS {
        let message = format!("`tools` must hold at most {MAX_TOOLS} functions");
        return Err(ApiError::invalid("tools", message));
    }
    let offered: Vec<Tool> =
        values.iter().enumerate().map(|(at, it)| tool(at, it)).collect::<Result<_, _>>()?;
    let choice = choice(fields, &offered)?;
    let parallel = fields.boolean("parallel_tool_calls")?;
    let parallel = fields.get("parallel_tool_calls").map(|_| parallel);
    let mut tools = Tools { offered, choice, parallel, ..Tools::default() };
    for (index, message) in messages.iter().enumerate() {
        match message.get("role").and_then(Value::as_str) {
            Some("assistant") => {
                let made = calls(index, message, &tools.offered)?;
                tools.calls.extend(made);
            }
            Some("tool") => {
                let result = result(index, message, &tools.calls)?;
                tools.results.push(result);
            }
            _ => {}
        }
    }
    Ok(tools)
}

fn tool(index: usize, value: &Value) -> Result<Tool, ApiError> {
    let wrong = |what: &str| ApiError::invalid("tools", format!("`tools[{index}]` {what}"));
    if value.get("type").and_then(Value::as_str) != Some("function") {
        return Err(wrong("must have the `type` \"function\""));
    }
    let Some(function) = value.get("function").and_then(Value::as_object) else {
        return Err(wrong("must have an object as `function`"));
    };
    let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() || function_name(name) != name {
        let rule = "must have a `function.name` of at most 64 letters, digits, `_`, `-` and `.`";
        return Err(wrong(rule));
    }
    if present(function, "description").is_some_and(|it| !it.is_string()) {
        return Err(wrong("must have a string as `function.description`"));
    }
    if present(function, "parameters").is_some_and(|it| !it.is_object()) {
        return Err(wrong("must have an object as `function.parameters`"));
    }
    let written = Value::Object(function.clone()).to_string();
    Ok(Tool { name: name.to_owned(), function: Json::read(&written) })
}

fn choice(fields: &Fields, offered: &[Tool]) -> Result<Option<ToolChoice>, ApiError> {
    let wrong = |message: &str| Err(ApiError::invalid("tool_choice", message));
    let Some(value) = fields.get("tool_choice") else { return Ok(None) };
    if value == "none" {
        return Ok(Some(ToolChoice::None));
    }
    if offered.is_empty() {
        return wrong("`tool_choice` needs `tools`");
    }
    match value.as_str() {
        Some("auto") => Ok(Some(ToolChoice::Auto)),
        Some("required") => Ok(Some(ToolChoice::Required)),
        Some(_) => wrong("`tool_choice` must be none, auto, required, or a function"),
        None => {
            let kind = value.get("type").and_then(Value::as_str);
            let name = value.pointer("/function/name").and_then(Value::as_str);
            let at = offered.iter().position(|it| Some(it.name.as_str()) == name);
            match at.filter(|_| kind == Some("function")) {
                Some(at) => Ok(Some(ToolChoice::Function(at))),
                None => wrong("`tool_choice` must name a function in `tools`"),
            }
        }
    }
}

/// What the assistant called in its message.
fn calls(index: usize, message: &Value, offered: &[Tool]) -> Result<Vec<ToolCall>, ApiError> {
    let wrong = |what: &str| {
        let message = format!("`messages[{index}].tool_calls` {what}");
        ApiError::invalid("messages", message)
    };
    let values = match message.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(values)) => values,
        Some(_) => return Err(wrong("must be an array")),
    };
    let call = |value: &Value| {
        if value.get("type").and_then(Value::as_str) != Some("function") {
            return Err(wrong("must be calls of the `type` \"function\""));
        }
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        let Some(id) = text("/id").filter(|it| !it.is_empty()) else {
            return Err(wrong("must have an `id` each"));
        };
        let Some(name) = text("/function/name").filter(|it| !it.is_empty()) else {
            return Err(wrong("must have a `function.name` each"));
        };
        let Some(arguments) = text("/function/arguments") else {
            return Err(wrong("must have a string as `function.arguments` each"));
        };
        let function = match offered.iter().position(|it| it.name == name) {
            Some(at) => Callee::Offered(at),
            None => Callee::Other(name.to_owned()),
        };
        let arguments = Json::read(arguments);
        Ok(ToolCall { message: index, id: id.to_owned(), function, arguments })
    };
    values.iter().map(call).collect()
}

/// Which call a message of a tool answers.
fn result(index: usize, message: &Value, calls: &[ToolCall]) -> Result<ToolResult, ApiError> {
    let id = message.get("tool_call_id").and_then(Value::as_str);
    match id.filter(|id| calls.iter().any(|it| it.id == *id)) {
        Some(id) => Ok(ToolResult { message: index, id: id.to_owned() }),
        None => {
            let message =
                format!("`messages[{index}].tool_call_id` must be the `id` of a call before it");
            Err(ApiError::invalid("messages", message))
        }
    }
}

/// A field that is there and not null.
fn present<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|it| !it.is_null())
}
