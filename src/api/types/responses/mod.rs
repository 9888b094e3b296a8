//! `/v1/responses`: OpenAI's newer interface, whose answers are lists of items.

pub mod event;
pub mod input;
pub mod item;
pub mod object;
pub mod request;

pub use event::{EventBody, ResponseEvent, SummaryPlace, TextPlace};
pub use input::{InputItem, InputPart};
pub use item::{FunctionCallItem, ItemStatus, MessageItem, OutputItem, OutputPart, ReasoningItem};
pub use object::{
    IncompleteDetails, ReasoningInForce, ResponseFailure, ResponseObject, ResponseSettings, ResponseStatus,
    ResponseUsage,
};
pub use request::{CreateResponse, ResponseTool, TextField, TextFormat};
