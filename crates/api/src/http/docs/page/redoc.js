// Shows openapi.json, or with ?model=fraud the document of that model alone.
const model = new URLSearchParams(location.search).get("model");
const text = "system-ui, sans-serif";
const code = "ui-monospace, monospace";

Redoc.init(
  model === null ? "openapi.json" : `models/${encodeURIComponent(model)}/openapi.json`,
  {
    sanitize: true, // descriptions come with the models
    theme: {
      typography: { fontFamily: text, headings: { fontFamily: text }, code: { fontFamily: code } },
    },
  },
  document.getElementById("redoc"),
);
