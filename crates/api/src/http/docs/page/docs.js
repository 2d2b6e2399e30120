// Shows openapi.json, or with ?model=fraud the document of that model alone.
const model = new URLSearchParams(location.search).get("model");

SwaggerUIBundle({
  url: model === null ? "openapi.json" : `models/${encodeURIComponent(model)}/openapi.json`,
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null, // the default sends the document to a host on the internet
  oauth2RedirectUrl: new URL("docs/oauth2-redirect", location.href).href,
  deepLinking: true,
  displayRequestDuration: true,
  filter: model === null,
  defaultModelsExpandDepth: 0,
});
