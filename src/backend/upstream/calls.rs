//! Tools in OpenAI's JSON: functions on offer, earlier calls, and the calls of a reply.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::types::{
    Callee, MOST_NAME_CHARS, Tool, ToolCallPiece, ToolChoice, Tools, function_name,
};

/// The fields of a body that say what the model may call.
pub(super) fn offer(tools: &Tools) -> Vec<(&'static str, Value)> {
    if tools.offered.is_empty() {
        return Vec::new();
    }
    let names = names(tools);
    let offered = tools.offered.iter().zip(&names).map(|(tool, name)| {
        let mut function = function(tool);
        function.insert("name".to_owned(), name.as_str().into());
        json!({ "type": "function", "function": function })
    });
    let mut fields = vec![("tools", offered.collect::<Vec<Value>>().into())];
    if let Some(choice) = tools.choice {
        let choice = match choice {
            ToolChoice::None => "none".into(),
            ToolChoice::Auto => "auto".into(),
            ToolChoice::Required => "required".into(),
            ToolChoice::Function(at) => {
                json!({ "type": "function", "function": { "name": names[at] } })
            }
        };
        fields.push(("tool_choice", choice));
    }
    if let Some(parallel) = tools.parallel {
        fields.push(("parallel_tool_calls", parallel.into()));
    }
    fields
}

/// Adds to messages the calls that they make or answer. The ids are made here: the client's are a
/// text that nobody reads.
pub(super) fn attach(tools: &Tools, messages: &mut [Value]) {
    let names = names(tools);
    for (count, call) in tools.calls.iter().enumerate() {
        let Some(message) = messages.get_mut(call.message) else { continue };
        let name = match &call.function {
            Callee::Offered(at) => names[*at].clone(),
            Callee::Other(name) => function_name(name),
        };
        let arguments = call.arguments.write();
        let written = json!({
            "id": id(count),
            "type": "function",
            "function": { "name": name, "arguments": arguments },
        });
        if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            calls.push(written);
            continue;
        }
        message["tool_calls"] = Value::Array(vec![written]);
        if message["content"] == "" {
            message["content"] = Value::Null;
        }
    }
    for result in &tools.results {
        let answers =
            tools.calls.iter().rposition(|it| it.id == result.id && it.message < result.message);
        if let (Some(call), Some(message)) = (answers, messages.get_mut(result.message)) {
            message["tool_call_id"] = id(call).into();
        }
    }
}

/// Nine letters and digits, which is what the strictest servers take.
fn id(call: usize) -> String {
    format!("call{call:05}")
}

/// The function as an object, empty should a treatment have broken it.
fn function(tool: &Tool) -> Map<String, Value> {
    serde_json::from_str(&tool.function.write()).unwrap_or_default()
}

/// The names by which the server knows the functions on offer: valid ones, no two alike, whatever a
/// treatment has made of the client's.
fn names(tools: &Tools) -> Vec<String> {
    let mut names = Vec::with_capacity(tools.offered.len());
    for tool in &tools.offered {
        let function = function(tool);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        names.push(unlike(&names, &function_name(name)));
    }
    names
}

/// The name, with a number where it is taken already.
fn unlike(taken: &[String], name: &str) -> String {
    let mut free = name.to_owned();
    for count in 2usize.. {
        if !free.is_empty() && !taken.contains(&free) {
            break;
        }
        let end = format!("_{count}");
        free = name.chars().take(MOST_NAME_CHARS - end.len()).collect();
        free.push_str(&end);
    }
    free
}

/// A piece of a call, or the whole of it, in a chunk.
#[derive(Debug, Deserialize)]
pub(super) struct Delta {
    /// Some servers that send calls whole leave it out.
    index: Option<usize>,
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
struct Function {
    name: Option<String>,
    /// A string; the object itself on some servers.
    #[serde(default)]
    arguments: Value,
}

/// The calls of a reply.
#[derive(Debug)]
pub(super) struct Calls {
    /// The client's name of each function by the server's.
    names: HashMap<String, String>,
    /// By choice and index.
    begun: BTreeMap<(usize, usize), Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    named: bool,
    id: String,
    /// What came before the name.
    arguments: String,
}

impl Calls {
    pub(super) fn new(tools: &Tools) -> Self {
        let own = tools.offered.iter().map(|it| it.name.clone());
        Self { names: names(tools).into_iter().zip(own).collect(), begun: BTreeMap::new() }
    }

    /// Whether the model may call anything. Calls that nobody asked for are not read.
    pub(super) fn allowed(&self) -> bool {
        !self.names.is_empty()
    }

    /// The pieces of one chunk. A call begins with its name; without one it is none.
    pub(super) fn read(&mut self, choice: usize, deltas: Vec<Delta>) -> Vec<ToolCallPiece> {
        if !self.allowed() {
            return Vec::new();
        }
        let numbered = deltas.into_iter().enumerate();
        numbered.filter_map(|(at, it)| self.piece(choice, it.index.unwrap_or(at), it)).collect()
    }

    fn piece(&mut self, choice: usize, index: usize, delta: Delta) -> Option<ToolCallPiece> {
        let call = self.begun.entry((choice, index)).or_default();
        let Function { name, arguments } = delta.function.unwrap_or_default();
        let arguments = match arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        if call.named {
            let piece = ToolCallPiece { index, arguments, ..ToolCallPiece::default() };
            return (!piece.arguments.is_empty()).then_some(piece);
        }
        call.arguments.push_str(&arguments);
        if let Some(id) = delta.id.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        let name = name.filter(|it| !it.is_empty())?;
        call.named = true;
        let id = std::mem::take(&mut call.id);
        let arguments = std::mem::take(&mut call.arguments);
        let name = self.names.get(&name).cloned().unwrap_or(name);
        Some(ToolCallPiece { index, id, name, arguments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Json, ToolCall, ToolResult};

    fn tool(name: &str, function: &Value) -> Tool {
        Tool { name: name.to_owned(), function: Json::read(&function.to_string()) }
    }

    /// Two functions whose names became alike, and a third.
    fn tools() -> Tools {
        let offered = vec![
            tool("find_ann", &json!({ "name": "find_Zora Kell", "description": "a \"b\"" })),
            tool("find_bo", &json!({ "name": "find_Zora_Kell" })),
            tool("weather", &json!({ "name": "weather", "parameters": { "type": "object" } })),
        ];
        Tools { offered, ..Tools::default() }
    }

    #[test]
    fn functions_are_offered_under_valid_names_no_two_alike() {
        let mut tools = tools();
        tools.choice = Some(ToolChoice::Function(1));
        tools.parallel = Some(false);
        let fields: Map<String, Value> =
            offer(&tools).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let function = |function: Value| json!({ "type": "function", "function": function });
        let want = json!({
            "tools": [
                function(json!({ "name": "find_Zora_Kell", "description": "a \"b\"" })),
                function(json!({ "name": "find_Zora_Kell_2" })),
                function(json!({ "name": "weather", "parameters": { "type": "object" } })),
            ],
            "tool_choice": function(json!({ "name": "find_Zora_Kell_2" })),
            "parallel_tool_calls": false,
        });
        assert_eq!(Value::Object(fields), want);
        assert!(offer(&Tools { parallel: Some(true), ..Tools::default() }).is_empty());
        let long = "x".repeat(64);
        let shortened = unlike(std::slice::from_ref(&long), &long);
        assert_eq!((shortened.len(), shortened.ends_with("x_2")), (64, true));
    }

    #[test]
    fn calls_and_results_are_joined_by_ids_of_their_own() {
        let mut tools = tools();
        let call = |message, function| ToolCall {
            message,
            id: "Ann Lee".to_owned(),
            function,
            arguments: Json::read(r#"{"a":"\u0062\""}"#),
        };
        // The same id twice: a result answers the last call before it.
        tools.calls =
            vec![call(0, Callee::Offered(1)), call(2, Callee::Other("was here".to_owned()))];
        let result = |message| ToolResult { message, id: "Ann Lee".to_owned() };
        tools.results = vec![result(1), result(3)];
        let turn = |role: &str, content: &str| json!({ "role": role, "content": content });
        let mut messages =
            [turn("assistant", ""), turn("tool", "r"), turn("assistant", "t"), turn("tool", "s")];
        attach(&tools, &mut messages);
        let written = |id: &str, name: &str| {
            let function = json!({ "name": name, "arguments": r#"{"a":"b\""}"# });
            json!([{ "id": id, "type": "function", "function": function }])
        };
        assert_eq!(messages[0]["content"], Value::Null);
        assert_eq!(messages[0]["tool_calls"], written("call00000", "find_Zora_Kell_2"));
        assert_eq!(messages[2]["content"], "t");
        assert_eq!(messages[2]["tool_calls"], written("call00001", "was_here"));
        let answered = [&messages[1]["tool_call_id"], &messages[3]["tool_call_id"]];
        assert_eq!(answered, ["call00000", "call00001"]);
    }

    fn read(calls: &mut Calls, deltas: Value) -> Vec<ToolCallPiece> {
        calls.read(0, serde_json::from_value(deltas).unwrap())
    }

    fn piece(index: usize, id: &str, name: &str, arguments: &str) -> ToolCallPiece {
        let [id, name, arguments] = [id, name, arguments].map(str::to_owned);
        ToolCallPiece { index, id, name, arguments }
    }

    #[test]
    fn a_call_comes_whole_or_in_pieces_under_the_clients_name() {
        let mut calls = Calls::new(&tools());
        let begin = json!([{ "index": 0, "id": "c", "type": "function",
            "function": { "name": "find_Zora_Kell_2", "arguments": "" } }]);
        assert_eq!(read(&mut calls, begin), [piece(0, "c", "find_bo", "")]);
        let more = json!([{ "index": 0, "id": "c", "function": { "name": "again", "arguments": "{" } },
            { "index": 1, "id": "d", "function": { "arguments": "[" } }]);
        assert_eq!(read(&mut calls, more), [piece(0, "", "", "{")]);
        // The name of the second one comes late, and a second name is not read.
        let rest = json!([{ "index": 1, "function": { "name": "weather", "arguments": "]" } },
            { "function": { "name": "odd" } }, { "function": { "name": "e", "arguments": { "f": 1 } } }]);
        let want = [piece(1, "d", "weather", "[]"), piece(2, "", "e", "{\"f\":1}")];
        assert_eq!(read(&mut calls, rest), want);
        let mut unasked = Calls::new(&Tools::default());
        assert_eq!(read(&mut unasked, json!([{ "function": { "name": "weather" } }])), []);
    }
}
