"use strict";

const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });

/** The schema that a reference names. */
const resolve = (api, schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

/** An example of a schema, as JSON would have it. */
function example(api, schema, depth = 0) {
  const { type, properties, items, oneOf, allOf, enum: values } = resolve(api, schema) ?? {};
  const first = oneOf?.[0] ?? allOf?.[0];
  if (first && depth < 8) return example(api, first, depth + 1);
  if (values) return values[0];
  if (properties && depth < 8) {
    return Object.fromEntries(Object.entries(properties).map(([name, of]) => [name, example(api, of, depth + 1)]));
  }
  const kind = Array.isArray(type) ? type[0] : type;
  if (kind === "array") return items && depth < 8 ? [example(api, items, depth + 1)] : [];
  return { string: "...", integer: 0, number: 0.5, boolean: false, object: {} }[kind] ?? null;
}

function body(api, content) {
  const list = make("div");
  for (const [kind, { schema }] of Object.entries(content ?? {})) {
    list.append(make("code", kind));
    const shows = kind.includes("json") ? JSON.stringify(example(api, schema), null, 2) : "";
    if (shows) list.append(make("pre", shows));
    list.append(" ");
  }
  return list;
}

function table(caption, rows) {
  const shown = make("table");
  shown.append(make("caption", caption, "hidden"));
  for (const [name, text] of rows) {
    const row = make("tr");
    const label = make("th");
    label.scope = "row";
    label.append(make("code", name));
    row.append(label, make("td", text));
    shown.append(row);
  }
  return shown;
}

function operation(api, path, method, { summary, description, parameters = [], requestBody, responses, security }) {
  const box = make("details", "", "operation");
  const title = make("summary");
  title.append(make("span", method.toUpperCase(), "method"), make("code", path), make("span", summary ?? ""));
  box.append(title, make("p", description ?? ""));
  if (security) box.append(make("p", "Takes Authorization: Bearer KEY, if the server has keys.", "soft"));
  if (parameters.length) {
    box.append(make("h3", "Parameters"));
    box.append(table("Parameters", parameters.map(({ name, in: place, description: text }) => [name, `(${place}) ${text ?? ""}`])));
  }
  if (requestBody) box.append(make("h3", "Body"), body(api, requestBody.content));
  box.append(make("h3", "Answers"));
  box.append(table("Answers", Object.entries(responses).map(([status, { description: text }]) => [status, text])));
  const good = responses[200]?.content;
  if (good) box.append(body(api, good));
  return box;
}

async function load() {
  const api = await (await fetch("/openapi.json")).json();
  document.getElementById("about").textContent = api.info.description;
  const operations = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, about]) => operation(api, path, method, about)),
  );
  document.getElementById("operations").replaceChildren(...operations);
}

load().catch(() => {
  document.getElementById("operations").textContent = "The description can't be read: open /openapi.json.";
});
