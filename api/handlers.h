/* handlers.h: what each endpoint file gives to the table in routes.c: its field rows and its handler. */
#ifndef STEERD_API_HANDLERS_H
#define STEERD_API_HANDLERS_H

#include "api/route.h"

#define HANDLER(name) int name(struct api_call *call, struct error *error)

/* steer.c */
extern const struct field steer_fields[];
HANDLER(steer_post);

/* activations.c */
extern const struct field activations_fields[], activation_new_fields[], search_all_fields[], search_topk_fields[];
HANDLER(activations_post);
HANDLER(activation_new_post);
HANDLER(search_all_post);
HANDLER(search_topk_post);

/* tokenize.c */
extern const struct field tokenize_fields[], tokenize_v1_fields[];
HANDLER(tokenize_post);
HANDLER(tokenize_v1_post);

/* models.c */
extern const struct field model_list_fields[], model_get_fields[];
HANDLER(models_get);
HANDLER(model_list_post);
HANDLER(model_get_post);

/* operations.c */
HANDLER(health_get);
HANDLER(ready_get);
HANDLER(metrics_get);
HANDLER(version_get);

/* openapi.c */
HANDLER(openapi_get);

/* pages.c */
HANDLER(root_get);
HANDLER(docs_get);

/* static_files.c */
HANDLER(home_get);
HANDLER(page_get);
HANDLER(subject_page_get);
HANDLER(static_get);

#endif
