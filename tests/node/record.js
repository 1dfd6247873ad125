// Records a request with everything that the OpenTelemetry SDK of Node has, exports it, and prints its trace id.
// node record.js grpc|json|protobuf none|gzip <address of the receiver>
const { SpanKind, SpanStatusCode, context, trace } = require("@opentelemetry/api");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const EXPORTERS = {
  grpc: "@opentelemetry/exporter-trace-otlp-grpc",
  json: "@opentelemetry/exporter-trace-otlp-http",
  protobuf: "@opentelemetry/exporter-trace-otlp-proto",
};

async function main(form, compression, url) {
  const { OTLPTraceExporter } = require(EXPORTERS[form]);
  const provider = new NodeTracerProvider({
    resource: resourceFromAttributes({ "service.name": "checkout", "service.version": "1.2.3", replicas: 3 }),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url, compression }))],
  });
  const tracer = provider.getTracer("shop", "0.1", { schemaUrl: "https://opentelemetry.io/schemas/1.37.0" });
  const root = tracer.startSpan("POST /checkout", { kind: SpanKind.SERVER });
  root.setAttributes({
    "http.route": "/checkout",
    "http.response.status_code": 500,
    items: ["book", "lamp"],
    weights: [0.5, 2.25],
    "is.member": true,
  });
  const links = [{ context: root.spanContext() }];
  const child = tracer.startSpan("charge", { kind: SpanKind.CLIENT, links }, trace.setSpan(context.active(), root));
  child.setAttribute("note", "snow \u2603 man");
  child.addEvent("retry", { attempt: 2 });
  child.recordException(new Error("card declined"));
  child.setStatus({ code: SpanStatusCode.ERROR, message: "declined" });
  child.end();
  root.end();
  // Fails when the receiver refuses.
  await provider.forceFlush();
  await provider.shutdown();
  console.log(root.spanContext().traceId);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
