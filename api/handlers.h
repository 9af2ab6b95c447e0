/* handlers.h: what each endpoint file gives to the table in routes.c: its field rows and its handler. */
#ifndef STEERD_API_HANDLERS_H
#define STEERD_API_HANDLERS_H

#include "api/route.h"

/* Rows that many routes share. */
#define MODEL_ROW \
  {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."}
#define SOURCE_ROW(name_, aliases_) \
  {name_, aliases_, FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."}
#define INDEX_ROW                                                   \
  {"index", NULL, FIELD_INDEX, .required = true, .max = 4294967295.0, \
   .text = "The feature's number in its source."}
#define OFFSET_ROW(text_) {"offset", NULL, FIELD_INT, .fallback = "0", .max = 1e12, .text = text_}

#define HANDLER(name) int name(struct api_call *call, struct error *error)

/* steer.c */
extern const struct field steer_fields[];
HANDLER(steer_post);

/* steer_chat.c */
extern const struct field steer_chat_fields[];
HANDLER(steer_chat_post);

/* activations.c */
extern const struct field activations_fields[], activation_new_fields[], activation_source_fields[], search_all_fields[], search_topk_fields[];
HANDLER(activations_post);
HANDLER(activation_new_post);
HANDLER(search_all_post);
HANDLER(search_topk_post);
HANDLER(activation_source_post);

/* inference_status.c, inference_activation.c, inference_capture.c, inference_steer.c */
extern const struct field inference_capabilities_fields[];
extern const struct field inference_single_fields[], inference_single_batch_fields[], inference_all_fields[];
extern const struct field inference_all_batch_fields[], inference_topk_fields[], inference_topk_batch_fields[];
extern const struct field inference_source_fields[], inference_raw_fields[], inference_attention_fields[];
extern const struct field inference_completion_fields[], inference_completion_chat_fields[];
HANDLER(inference_completion_post);
HANDLER(inference_completion_chat_post);
HANDLER(inference_capabilities_get);
HANDLER(inference_health_get);
HANDLER(inference_single_post);
HANDLER(inference_single_batch_post);
HANDLER(inference_all_post);
HANDLER(inference_all_batch_post);
HANDLER(inference_topk_post);
HANDLER(inference_topk_batch_post);
HANDLER(inference_source_post);
HANDLER(inference_raw_post);
HANDLER(inference_attention_post);

/* openai_models.c, openai_completions.c, openai_chat.c */
extern const struct field completions_fields[], chat_completions_fields[], apply_chat_template_fields[];
HANDLER(openai_models_get);
HANDLER(openai_model_get);
HANDLER(completions_post);
HANDLER(chat_completions_post);
HANDLER(apply_chat_template_post);

/* tokenize.c */
extern const struct field tokenize_fields[], tokenize_v1_fields[];
HANDLER(tokenize_post);
HANDLER(tokenize_v1_post);

/* features.c */
extern const struct field feature_fields[], features_fields[], features_offset_fields[], activation_get_fields[];
HANDLER(feature_get);
HANDLER(features_post);
HANDLER(features_offset_post);
HANDLER(activation_get_post);

/* explanations.c */
extern const struct field explanations_fields[], explanation_export_fields[], explanation_new_fields[];
HANDLER(explanations_get);
HANDLER(explanation_export_get);
HANDLER(explanation_get);
HANDLER(explanation_new_post);
HANDLER(explanation_delete_post);

/* explanation_search.c */
extern const struct field explanation_search_fields[], explanation_search_model_fields[];
extern const struct field explanation_search_release_fields[], explanation_search_all_fields[];
HANDLER(explanation_search_post);
HANDLER(explanation_search_model_post);
HANDLER(explanation_search_release_post);
HANDLER(explanation_search_all_post);

/* vectors.c */
extern const struct field vector_new_fields[], vector_get_fields[], vector_delete_fields[], vector_list_fields[], vector_upload_fields[],
    vector_download_fields[];
HANDLER(vector_new_post);
HANDLER(vector_upload_post);
HANDLER(vector_download_get);
HANDLER(vector_get_post);
HANDLER(vector_list_post);
HANDLER(vector_delete_post);

/* umap.c */
extern const struct field umap_fields[];
HANDLER(umap_post);

/* cossim.c */
extern const struct field cossim_fields[];
HANDLER(cossim_post);
extern const struct field inference_cossim_fields[];
HANDLER(inference_cossim_post);

/* inference_lens.c */
extern const struct field inference_lens_fields[], lens_prompt_fields[];
HANDLER(inference_lens_post);
HANDLER(lens_prompt_post);

/* inference_util.c */
extern const struct field inference_vector_fields[], inference_similarity_fields[];
HANDLER(inference_vector_post);
HANDLER(inference_similarity_post);

/* dictionaries.c */
extern const struct field dictionary_fields[], density_fields[], dictionary_features_fields[];
HANDLER(dictionary_get);
HANDLER(density_get);
HANDLER(dictionary_features_get);
HANDLER(dictionary_random_get);

/* sources.c */
extern const struct field sources_fields[], source_new_fields[];
HANDLER(sources_get);
HANDLER(sources_post);
HANDLER(source_delete);

/* logits.c, lab_token_score.c */
extern const struct field logit_stats_fields[], enrichment_fields[], token_score_fields[];
HANDLER(logit_stats_get);
HANDLER(enrichment_post);
HANDLER(token_score_post);

/* lab_training.c */
extern const struct field lab_training_fields[];
HANDLER(lab_training_get);

/* lab_run.c, lab_next.c, lab_compare.c, lab_patch.c, lab_ablate.c, lab_lens.c */
extern const struct field lab_run_fields[], lab_next_fields[], lab_compare_fields[], lab_direction_fields[], lab_patch_fields[],
    lab_attribute_fields[], lab_graph_fields[];
extern const struct field lab_ablate_fields[], lab_lens_fields[], lab_components_fields[];
extern const struct field lab_heads_fields[], lab_points_fields[];
HANDLER(lab_points_get);
HANDLER(docs_points_get);
HANDLER(lab_heads_post);
HANDLER(lab_compare_post);
HANDLER(lab_direction_post);
HANDLER(lab_patch_post);
HANDLER(lab_attribute_post);
HANDLER(lab_graph_post);

/* graphs.c */
extern const struct field graph_generate_fields[], graph_delete_fields[];
HANDLER(graph_generate_post);
HANDLER(graph_get);
HANDLER(graph_file_get);
HANDLER(graph_list_post);
HANDLER(graph_delete_post);

/* graph_tokenize.c, graph_steer.c, graph_subgraphs.c */
extern const struct field graph_tokenize_fields[], steer_logits_fields[], subgraph_save_fields[], subgraph_list_fields[], subgraph_delete_fields[];
HANDLER(graph_tokenize_post);
HANDLER(steer_logits_post);
HANDLER(subgraph_save_post);
HANDLER(subgraph_list_post);
HANDLER(subgraph_delete_post);

/* graph_features.c */
HANDLER(graph_feature_get);

/* graph_upload.c */
extern const struct field graph_place_fields[], graph_save_fields[];
HANDLER(graph_place_post);
HANDLER(graph_upload_put);
HANDLER(graph_save_post);
HANDLER(lab_ablate_post);
HANDLER(lab_lens_post);
HANDLER(lab_components_post);
HANDLER(lab_run_post);
HANDLER(lab_next_post);

/* jobs.c */
extern const struct field jobs_fields[], jobs_list_fields[];
HANDLER(jobs_post);
HANDLER(jobs_get);
HANDLER(job_get);
HANDLER(job_events_get);
HANDLER(job_delete);
HANDLER(job_resume_post);

/* shares.c */
extern const struct field steer_load_fields[];
HANDLER(steer_load_post);

/* models.c */
extern const struct field model_list_fields[], model_get_fields[];
HANDLER(models_get);
HANDLER(model_list_post);
HANDLER(model_get_post);
HANDLER(source_set_get);

/* registrations.c */
extern const struct field model_new_fields[], source_set_new_fields[];
HANDLER(model_new_post);
HANDLER(source_set_new_post);

/* forget.c */
extern const struct field model_delete_fields[], source_set_delete_fields[], feature_delete_fields[];
HANDLER(model_delete_post);
HANDLER(source_set_delete_post);
HANDLER(feature_delete_post);
struct lab_source_info;
/* The reply of DELETE for a source that the store alone knows. */
int source_forget(struct api_call *call, const struct lab_source_info *source, struct error *error) MUST_CHECK;

/* uploads.c */
extern const struct field feature_upload_fields[], activation_upload_fields[];
HANDLER(feature_upload_post);
HANDLER(activation_upload_post);

/* lists.c */
extern const struct field list_new_fields[], list_new_with_fields[], list_add_fields[], list_edit_fields[], list_remove_fields[];
extern const struct field list_update_fields[], list_delete_fields[], list_get_fields[];
HANDLER(list_new_post);
HANDLER(list_new_with_post);
HANDLER(list_add_post);
HANDLER(list_edit_post);
HANDLER(list_remove_post);
HANDLER(list_update_post);
HANDLER(list_delete_post);
HANDLER(list_list_post);
HANDLER(list_get_post);

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
