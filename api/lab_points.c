/* lab_points.c: GET /v1/lab/points: the points of a model with all their names; GET /docs/points: the same as a page. */
#include <stdio.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/page.h"
#include "api/reply.h"

const struct field lab_points_fields[] = {MODEL_ROW, {.name = NULL}};

/* ["positions", heads, columns]; of scores and patterns the last is "positions" again. */
static void write_shape(struct json_writer *w, const struct lab_point *point) {
  jw_key(w, "shape");
  jw_open(w, '[');
  jw_text(w, "positions");
  if (point->heads) jw_int(w, point->heads);
  if (point->square)
    jw_text(w, "positions");
  else
    jw_int(w, point->width);
  jw_close(w, ']');
}

static void write_point(struct json_writer *w, const struct lab_point *point) {
  jw_open(w, '{');
  jw_member_text(w, "name", point->name);
  reply_texts(w, "spellings", point->spellings, point->n_spellings);
  if (point->missing) {
    jw_member_text(w, "missing", point->missing);
  } else {
    write_shape(w, point);
    jw_member_text(w, "kind", point->kind);
    jw_member_text(w, "fixed", point->fixed);
  }
  jw_close(w, '}');
}

static void write_points(struct json_writer *w, const char *key, const struct lab_point *points, size_t n, bool missing) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++)
    if (!points[i].missing != missing) write_point(w, &points[i]);
  jw_close(w, ']');
}

int lab_points_get(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_model(call, call->values, "modelId", error);
  const struct lab_point *points;
  struct json_writer w;
  size_t n;
  if (!model || lab_points(model, call->api->lab, &call->arena, &points, &n, error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", model->id);
  jw_member_int(&w, "layers", model->n_layer);
  write_points(&w, "points", points, n, false);
  write_points(&w, "missing", points, n, true);
  jw_close(&w, '}');
  return 0;
}

/* ---- the page ----------------------------------------------------------------------------------------- */

static void add_shape(struct buffer *out, const struct lab_point *point) {
  buffer_text(out, "positions");
  if (point->heads) buffer_printf(out, " x %lld heads", (long long)point->heads);
  if (point->square)
    buffer_text(out, " x positions");
  else
    buffer_printf(out, " x %lld", (long long)point->width);
}

static void add_point(struct buffer *out, const struct lab_point *point) {
  buffer_text(out, "<tr><td>");
  page_element(out, "code", point->name);
  buffer_text(out, "</td><td>");
  for (size_t i = 0; i < point->n_spellings; i++) {
    if (i) buffer_text(out, ", ");
    page_element(out, "code", point->spellings[i]);
  }
  buffer_text(out, "</td><td>");
  if (point->missing)
    page_escaped(out, point->missing);
  else
    add_shape(out, point);
  buffer_text(out, "</td><td>");
  page_escaped(out, point->missing ? "not here" : point->fixed ? "look only" : "look, edit");
  buffer_text(out, "</td></tr>\n");
}

int docs_points_get(struct api_call *call, struct error *error) {
  const struct lab_model_info *models;
  size_t n_models = lab_models(call->api->lab, &models), n;
  struct buffer *out = &call->body;
  page_open(call, "steerd: points");
  buffer_text(out, "<p>A point is a named activation of the forward pass. Every point can be looked at (<code>points</code> of "
                   "<code>/v1/lab/run</code>) and changed (<code>edits</code>). N is the layer; names may be patterns: "
                   "<code>blocks.*.hook_resid_post</code>, <code>z.*</code>. At each point edits come first, then taps. The same for "
                   "machines: <a href=\"/v1/lab/points\">/v1/lab/points</a>; <a href=\"/docs\">all calls</a>.</p>\n");
  for (size_t m = 0; m < n_models; m++) {
    const struct lab_point *points;
    if (lab_points(&models[m], call->api->lab, &call->arena, &points, &n, error) != 0) return -1;
    page_element(out, "h2", models[m].id);
    buffer_text(out, "<table><tr><th>point</th><th>also</th><th>a text's rows</th><th></th></tr>\n");
    for (size_t i = 0; i < n; i++) add_point(out, &points[i]);
    buffer_text(out, "</table>\n");
  }
  page_close(call);
  return 0;
}
