/* pages.c: the plain pages: /docs, and / where the dashboard is not installed. No inline script or style, everything
 * escaped; the documentation is written from the table of routes, so it cannot say anything else than the code does. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"
#include "api/handlers.h"
#include "api/page.h"
#include "api/shapes.h"
#include "core/base/number.h"

void page_escaped(struct buffer *out, const char *text) {
  for (; *text; text++) {
    switch (*text) {
      case '<': buffer_text(out, "&lt;"); break;
      case '>': buffer_text(out, "&gt;"); break;
      case '&': buffer_text(out, "&amp;"); break;
      case '"': buffer_text(out, "&quot;"); break;
      case '\'': buffer_text(out, "&#39;"); break;
      default: buffer_char(out, *text);
    }
  }
}

void page_element(struct buffer *out, const char *tag, const char *text) {
  buffer_printf(out, "<%s>", tag);
  page_escaped(out, text);
  buffer_printf(out, "</%s>", tag);
}

void page_open(struct api_call *call, const char *title) {
  call->content_type = "text/html; charset=utf-8";
  buffer_text(&call->body, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                           "<meta name=\"viewport\" content=\"width=device-width\"><title>");
  page_escaped(&call->body, title);
  buffer_text(&call->body, "</title><link rel=\"icon\" href=\"/static/icon.svg\"><link rel=\"stylesheet\" href=\"/static/docs.css\">"
                           "</head><body>\n");
  page_element(&call->body, "h1", title);
}

void page_close(struct api_call *call) { buffer_text(&call->body, "</body></html>\n"); }

/* ---- / ------------------------------------------------------------------------------------------------ */

static void add_models(struct api_call *call) {
  const struct lab_model_info *models;
  size_t count = lab_models(call->api->lab, &models);
  struct buffer *out = &call->body;
  buffer_text(out, "<h2>Loaded</h2>\n<ul>\n");
  for (size_t i = 0; i < count; i++) {
    buffer_text(out, "<li>");
    page_element(out, "code", models[i].id);
    buffer_printf(out, ": %d layers, width %lld, sources:", models[i].n_layer, (long long)models[i].d_model);
    const struct lab_source_info *const *sources;
    size_t n = lab_sources(call->api->lab, &models[i], &sources);
    for (size_t k = 0; k < n; k++) {
      buffer_char(out, ' ');
      page_element(out, "code", sources[k]->id);
    }
    buffer_text(out, n ? "</li>\n" : " none</li>\n");
  }
  buffer_text(out, "</ul>\n");
}

int root_get(struct api_call *call, struct error *error) {
  (void)error;
  struct buffer *out = &call->body;
  page_open(call, "steerd");
  buffer_text(out, "<p>A daemon that opens up a language model while it runs: it generates text with features of sparse "
                   "dictionaries turned up or down, and tells which features a text turns on.</p>\n"
                   "<ul><li><a href=\"/docs\">What can be asked, with every field</a></li>"
                   "<li><a href=\"/openapi.json\">The same for machines (OpenAPI 3.1)</a></li>"
                   "<li><a href=\"/models\">Models and sources</a></li>"
                   "<li><a href=\"/metrics\">Metrics</a>, <a href=\"/health\">health</a>, "
                   "<a href=\"/ready\">readiness</a>, <a href=\"/version\">version</a></li></ul>\n"
                   "<p>The dashboard (/steer, /inspect, /lab, /graph, /jobs) is not served: its files were not found. The setting "
                   "<code>static</code> names their folder.</p>\n");
  add_models(call);
  buffer_text(out, "<h2>A first request</h2>\n<pre>curl ");
  page_escaped(out, call->api->options.base_url ? call->api->options.base_url : "http://127.0.0.1:8080");
  buffer_text(out, "/steer -d '{\"prompt\": \"Hello\", \"features\": []}'</pre>\n");
  page_close(call);
  return 0;
}

/* ---- /docs -------------------------------------------------------------------------------------------- */

static void add_default(struct buffer *out, const struct field *row, const struct api_options *options) {
  char number[32];
  number_f64(field_default(row, options), number);
  bool is_number = row->type == FIELD_INT || row->type == FIELD_NUMBER;
  if (row->unless) {
    buffer_text(out, "required unless ");
    page_element(out, "code", row->unless);
    return;
  }
  page_escaped(out, row->required ? "required" : !row->fallback ? "" : is_number ? number : row->fallback);
}

static void add_rows(struct buffer *out, const struct field *rows, const char *prefix,
                     const struct api_options *options) {
  for (const struct field *row = rows; row->name; row++) {
    char name[128], allowed[200];
    bool list = row->type == FIELD_OBJECTS;
    snprintf(name, sizeof name, "%s%s%s", prefix, row->name, list ? "[]" : "");
    field_allowed(row, options, allowed, sizeof allowed);
    buffer_text(out, "<tr><td>");
    page_element(out, "code", name);
    if (row->aliases) {
      buffer_text(out, "<br>or ");
      page_element(out, "code", row->aliases);
    }
    buffer_text(out, "</td><td>");
    page_escaped(out, allowed);
    buffer_text(out, "</td><td>");
    add_default(out, row, options);
    buffer_text(out, "</td><td>");
    page_escaped(out, row->text);
    buffer_text(out, "</td></tr>\n");
    if (!row->inner) continue;
    size_t used = strlen(name);
    snprintf(name + used, sizeof name - used, ".");
    add_rows(out, row->inner, name, options);
  }
}

/* A shape, the names in it leading to what they stand for. They are letters and digits. */
static void add_shape(struct buffer *out, const char *body) {
  buffer_text(out, "<code>");
  for (const char *at = body; *at;) {
    size_t n = strcspn(at, "@"), name = 0;
    buffer_append(out, at, n); /* our own text, without characters that HTML knows */
    at += n;
    if (!*at) break;
    while (isalnum((unsigned char)at[1 + name])) name++;
    buffer_printf(out, "<a href=\"#%.*s\">%.*s</a>", (int)name, at + 1, (int)name, at + 1);
    at += 1 + name;
  }
  buffer_text(out, "</code>");
}

static void add_route(struct buffer *out, const struct route *row, const struct api_options *options) {
  char title[160], id[ROUTE_ID_BYTES];
  snprintf(title, sizeof title, "%s %s", row->method, row->path);
  route_id(row, id);
  buffer_printf(out, "<h3 id=\"%s\">", id);
  page_element(out, "code", title);
  buffer_text(out, "</h3>\n<p>");
  page_escaped(out, row->summary);
  buffer_text(out, ".</p>\n");
  const struct shape *shape = shape_of(row);
  const char *event = shape ? shape_event(shape) : NULL;
  if (shape && shape->body) {
    buffer_text(out, "<p>Answers ");
    add_shape(out, shape->body);
    buffer_text(out, "</p>\n");
  }
  if (event && (!shape->body || strcmp(event, shape->body) != 0)) {
    buffer_text(out, "<p>Each event of a stream carries ");
    add_shape(out, event);
    buffer_text(out, "</p>\n");
  }
  if (!row->fields || !row->fields->name) return;
  const char *what = route_takes_query(row) ? "query parameters" : "fields";
  buffer_printf(out, "<p>Unknown %s are %s.</p>\n", what, row->flags & ROUTE_STRICT ? "refused" : "ignored");
  if (row->fields->bare) buffer_text(out, "<p>The body may also be the array itself.</p>\n");
  buffer_printf(out, "<table class=\"fields\"><tr><th>%s</th>", route_takes_query(row) ? "query parameter" : "field");
  buffer_text(out, "<th>allowed</th><th>when left out</th><th></th></tr>\n");
  add_rows(out, row->fields, "", options);
  buffer_text(out, "</table>\n");
}

static void add_shapes(struct buffer *out) {
  const char *name, *body;
  buffer_text(out, "<h2 id=\"shapes\">Shapes of answers</h2>\n");
  buffer_text(out, "<p>In braces the members of an object, in brackets an array's elements; a name with ? may be missing, a value "
                   "with ? may be null, ... says that there may be more.</p>\n<table><tr><th>name</th><th>shape</th></tr>\n");
  for (size_t i = 0; (name = shape_name(i, &body)); i++) {
    buffer_printf(out, "<tr id=\"%s\"><td>", name);
    page_element(out, "code", name);
    buffer_text(out, "</td><td>");
    add_shape(out, body);
    buffer_text(out, "</td></tr>\n");
  }
  buffer_text(out, "</table>\n");
}

/* Links to all routes of a family, in a line. */
static void add_links(struct buffer *out, int family) {
  buffer_text(out, "<ul class=\"links\">\n");
  for (size_t i = 0; i < n_routes; i++) {
    char id[ROUTE_ID_BYTES], title[160];
    if ((int)routes[i].family != family || !routes[i].handler) continue;
    route_id(&routes[i], id);
    snprintf(title, sizeof title, "%s %s", routes[i].method, routes[i].path);
    buffer_printf(out, "<li><a href=\"#%s\">", id);
    page_escaped(out, title);
    buffer_text(out, "</a></li>\n");
  }
  buffer_text(out, "</ul>\n");
}

static const char *const family_titles[FAMILY_COUNT] = {"The short four", "As Neuronpedia", "As OpenAI", "The laboratory",
                                                        "Operations"};

/* The page is long: its parts, at the top. */
static void add_contents(struct buffer *out) {
  buffer_text(out, "<ul class=\"links\">\n");
  for (int family = 0; family < FAMILY_COUNT; family++)
    buffer_printf(out, "<li><a href=\"#family-%s\">%s</a></li>\n", route_family_word((enum route_family)family),
                  family_titles[family]);
  buffer_text(out, "<li><a href=\"#shapes\">Shapes of answers</a></li>\n</ul>\n");
}

int docs_get(struct api_call *call, struct error *error) {
  (void)error;
  struct buffer *out = &call->body;
  page_open(call, "steerd: what can be asked");
  buffer_text(out, "<p>JSON in, JSON out. Field names may be written in camelCase or snake_case; a trailing slash changes "
                   "nothing; null is the same as leaving a field out. The same table for machines: "
                   "<a href=\"/openapi.json\">/openapi.json</a>. The activations that can be looked at and changed: "
                   "<a href=\"/docs/points\">/docs/points</a>.</p>\n");
  if (call->api->files.count)
    buffer_text(out, "<p>The <a href=\"/\">dashboard</a> shows the same in pages: <a href=\"/steer\">steer</a>, "
                     "<a href=\"/inspect\">inspect</a>, <a href=\"/lab\">lab</a>, <a href=\"/graph\">graph</a>, <a href=\"/jobs\">jobs</a>.</p>\n");
  add_contents(out);
  for (int family = 0; family < FAMILY_COUNT; family++) {
    buffer_printf(out, "<h2 id=\"family-%s\">%s</h2>\n", route_family_word((enum route_family)family), family_titles[family]);
    add_links(out, family);
    for (size_t i = 0; i < n_routes; i++)
      if ((int)routes[i].family == family) add_route(out, &routes[i], &call->api->options);
  }
  add_shapes(out);
  page_close(call);
  return 0;
}
