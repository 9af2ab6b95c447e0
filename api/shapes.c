/* shapes.c: what each endpoint answers, a row a handler, and the shapes that have names. Nothing but the tables and the search:
 * what the notation means is in shapes.h. A handler without a row is documented without its answer. */
#include "api/shapes.h"

#include <string.h>

#include "api/handlers.h"

#define AT_SOURCE "modelId: text, source: text"
#define AT_FEATURE "modelId: text, layer: text, index: text"
#define SHARE_ROWS "[{below: number, features: integer, share: number?}]"
#define SOURCE_MEMBERS                                                                                              \
  "set: text, kind: text?, layer: integer, point: text?, pointOut: text?, features: integer, width: integer, "          \
  "folded: boolean?, bosCounts: boolean?, seqposSlice: [integer?]?, excludedTokens: [integer]?, promotes: boolean, pointLast?: text, bytes: integer, indices?: integer"
#define LISTED_SOURCE AT_SOURCE ", state: text, lastUsedAt: text?, path?: text?, encoderBytes: integer"
#define TEXTS_MEMBERS \
  "STEERED: text?, DEFAULT: text?, steeredLogProbs: [@TokenLogprob]?, defaultLogProbs: [@TokenLogprob]?, id: text?, shareUrl: text?"
#define TEXT_TOKENS "tokens: [text], ids: [integer]"
#define SHARE "total: number, features: number, bias: number, error: number, active: integer, top: [@FeatureShare]"
#define COMPLETION "id: text, object: text, created: integer, model: text, system_fingerprint: text, usage: @Usage"
#define EVENTS "application/json text/event-stream"
#define CHUNK "id: text, object: text, created: integer, model: text, system_fingerprint: text, usage?: @Usage?"
#define ARRAYS "application/json application/x-npy application/vnd.safetensors"
#define HTML "text/html"
#define LINES "application/x-ndjson application/json"
#define LIST_MEMBERS \
  "id: text, name: text, description: text?, defaultTestText: text?, createdAt: text, updatedAt: text, count: integer, url: text"
#define TOP_FEATURES "[{activationValue: number, featureIndex: integer}]"
#define ORIGINS "dfaValues?: [number], dfaTargetIndex?: integer, dfaMaxValue?: number"
#define INFERENCE_VALUES \
  "values: [number], maxValue: number, maxValueIndex: integer, dfaValues: [number]?, dfaTargetIndex: integer?, dfaMaxValue: number?"

static const struct {
  const char *name, *body;
} names[] = {
    {"Steered", "{" TEXTS_MEMBERS ", limit: null}"},
    {"SharedSteering",
     "{" TEXTS_MEMBERS ", limit: null, modelId: text, inputText: text, outputTextIncludesPrompt: boolean, "
     "features: [{" AT_FEATURE ", strength: number}], temperature: number, n_tokens: integer, freq_penalty: number, seed: integer, "
     "strength_multiplier: number, steer_method: text, steer_special_tokens: boolean, top_k: integer, top_p: number, createdAt: text}"},
    {"Turn", "{content: text, role: text}"},
    {"SteeredChat", "{raw: text, chatTemplate: [@Turn], logprobs: [@TokenLogprob]?}"},
    {"TokenLogprob", "{token: text, logprob: number, topLogprobs: [{token: text, logprob: number}]}"},
    {"FeatureValues",
     "{tokens: [text], values: [number], maxValue: number, minValue: number, " AT_FEATURE ", creatorId: null, dataIndex: null, "
     "dataSource: text, maxValueTokenIndex: integer, " ORIGINS ", createdAt: text}"},
    {"FeatureLabel",
     "{" AT_FEATURE ", maxActApprox: number?, frac_nonzero: number?, explanations: [{" AT_FEATURE ", description: text, "
     "explanationModelName: text?, typeName: text?}]}"},
    {"TopByToken",
     "{source: text, results: [{position: integer, token: text, isSpecial: boolean, "
     "topFeatures: [{activationValue: number, featureIndex: integer, feature?: @FeatureLabel}]}]}"},
    {"TopOverText",
     "{tokens: [text], result: [{" AT_FEATURE ", values: [number], maxValue: number, maxValueIndex: integer, " ORIGINS ", neuron?: @FeatureLabel}], "
     "sortIndexes: [integer]}"},
    {"Activation",
     "{id: text, modelId: text, layer: text, source: text, index: text, tokens: [text], values: [number], maxValue: number, "
     "maxValueTokenIndex: integer, minValue: number, binMin: number?, binMax: number?, binContains: number?, "
     "qualifyingTokenIndex: integer?, dfaValues: [number]?, dfaTargetIndex: integer?, dfaMaxValue: number?, zQIndices: [any], "
     "zKIndices: [any], zValues: [any], lossValues: [number]?, logitContributions: any, dataIndex: text?, dataSource: text?, "
     "document: integer?, position: integer?, creatorId: text?, createdAt: text?}"},
    {"Explanation",
     "{id: text, modelId: text, layer: text, index: text, description: text, explanationModelName: text?, typeName: text?, "
     "source: text, score: number?, scores: [any], origin: text, authorId: text?, notes: text?, triggeredByUser: any, "
     "createdAt: text}"},
    {"ExplanationRow",
     "{" AT_FEATURE ", description: text, explanationModelName: text?, typeName: text?, id?: text, snippet?: text, rank?: number}"},
    {"ExplanationSearch",
     "{request: {modelId?: text, releaseName?: text, query: text, match: text, offset: integer}, results: [{" AT_FEATURE ", description: text, "
     "explanationModelName: text?, typeName: text?, id: text, snippet: text, rank: number, cosine_similarity: null}], "
     "resultsCount: integer, hasMore: boolean, nextOffset?: integer}"},
    {"Conventions",
     "{folded: boolean?, bosCounted: boolean?, lines: boolean?, context: integer?, documents: integer?, logits: text?, corpus: text?, "
     "corpusHash: text?, madeAt: text?}"},
    {"ModelRow",
     "{id: text, displayName: text, displayNameShort: text, layers: integer, neuronsPerLayer: integer?, dimension: integer?, "
     "website: text?, inferenceEnabled: boolean, visibility: text}"},
    {"SourceRow",
     "{id: text, modelId: text, setName: text, hookName: text?, inferenceEnabled: boolean, visibility: text}"},
    {"SourceSet", "{modelId: text, name: text, visibility: text, description: text?, urls: [text], sources: [@SourceRow]}"},
    {"ModelWithSets",
     "{id: text, displayName: text, displayNameShort: text, layers: integer, neuronsPerLayer: integer?, dimension: integer?, "
     "website: text?, inferenceEnabled: boolean, visibility: text, "
     "sourceSets: [{modelId: text, name: text, visibility: text, sources: [@SourceRow]}]}"},
    {"Feature",
     "{" AT_FEATURE ", sourceSetName: text?, creatorId: text?, createdAt: text?, maxActApprox: number?, hasVector: boolean, "
     "vector: [number], vectorLabel: text?, vectorDefaultSteerStrength: number?, hookName: text?, frac_nonzero: number?, "
     "n_tokens: integer?, n_fired: integer?, mean: number?, decoder_norm: number?, conventions: @Conventions, "
     "topkCosSimIndices: [integer], topkCosSimValues: [number], neg_str: [text], neg_values: [number], pos_str: [text], "
     "pos_values: [number], freq_hist_data_bar_heights: [number], freq_hist_data_bar_values: [number], "
     "logits_hist_data_bar_heights: [number], logits_hist_data_bar_values: [number], neuron_alignment_indices: [integer], "
     "neuron_alignment_values: [number], neuron_alignment_l1: [number], correlated_neurons_indices: [integer], "
     "correlated_neurons_pearson: [number], correlated_neurons_l1: [number], correlated_features_indices: [integer], "
     "correlated_features_pearson: [number], correlated_features_l1: [number], decoder_weights_dist: [number], "
     "umap_cluster: number?, umap_log_feature_sparsity: number?, umap_x: number?, umap_y: number?, activations: [@Activation], "
     "explanations: [@Explanation], model: @ModelRow, source: @SourceRow, sourceSet: {modelId: text, name: text, visibility: text}, "
     "creator: any, lists: [{listId: text, modelId: text, layer: text, source: text, index: text, description: text?, "
     "addedAt: text, list: {id: text, name: text, description: text?}}], comments: [any]}"},
    {"Vector",
     "{modelId: text, layer: text, source: text, index: text, vectorLabel: text?, createdAt: text?, creatorId: null, "
     "vectorDefaultSteerStrength: number, hookName: text, vector: [number]}"},
    {"FeatureName", "{model: text, source: text, index: integer}"},
    {"Job",
     "{id: integer, kind: text, state: text, done: integer, total: integer?, unit: text?, share: number?, rate: number, "
     "secondsLeft: number?, message: text?, training?: {loss: number, mse: number, sparsity: number, aux: number, l0: number, "
     "explainedVariance: number?, dead: integer, features: integer, tokens: integer}, cancelling: boolean, error: text?, resumable: boolean, notResumable: text?, "
     "parameters: {modelId?: text, source?: text, corpus?: text, lines?: boolean, maxTokens?: integer, ...}, result: any, createdAt: text, "
     "startedAt: text?, updatedAt: text, finishedAt: text?}"},
    {"Prediction", "{rank: integer, token: text, id: integer, logit: number, logprob: number, probability: number}"},
    {"Answer", "{token: text, id: integer}"},
    {"Run",
     "{" TEXT_TOKENS ", positions: [integer], loss?: number?, tokenLosses?: [number?], top?: [[@Prediction]], "
     "activations: {*: [[number?]|[[number?]]]}}"},
    {"PatchedRun", "{" TEXT_TOKENS ", value: number}"},
    {"FeatureShare", "{index: integer, activation: number, against?: number, attribution: number}"},
    {"GraphRow",
     "{id: text, modelId: text, slug: text, promptTokens: [text], prompt: text, titlePrefix: text, sourceSetName: text?, url: text, pageUrl: text, "
     "numNodes: integer, numLinks: integer, userId: null, isFeatured: boolean, createdAt: text, updatedAt: text}"},
    {"AttributionGraph",
     "{metadata: {slug: text, scan: text, transcoder_list: [text], prompt_tokens: [text], prompt: text, node_threshold: number, "
     "schema_version: integer, info: {generator: {name: text, version: text}, create_time_ms: integer}, "
     "generation_settings: {max_n_logits: integer, desired_logit_prob: number, max_feature_nodes: integer}, "
     "pruning_settings: {node_threshold: number, edge_threshold: number}, feature_details: {neuronpedia_source_set: text?}, "
     "scores: {replacement: number, completeness: number}, counts: {active: integer, looked_at: integer}}, "
     "qParams: {linkType: text, pinnedIds: [text], clickedId: text, supernodes: [any], sg_pos: text}, "
     "nodes: [{node_id: text, feature: integer, layer: text, ctx_idx: integer, feature_type: text, token_prob: number, "
     "is_target_logit: boolean, run_idx: integer, reverse_ctx_idx: integer, jsNodeId: text, clerp: text, influence: number, "
     "activation: number?, source?: text, index?: integer}], links: [{source: text, target: text, weight: number}]}"},
    {"UploadedGraph",
     "{metadata: {slug: text, scan: text, prompt: text, prompt_tokens: [text], ...}, qParams: {...}, nodes: [{node_id: text, feature: integer?, "
     "layer: text|integer, ctx_idx: integer, feature_type: text, jsNodeId: text, clerp: text, ...}], "
     "links: [{source: text, target: text, weight: number, ...}], ...}"},
    {"Attribution",
     "{" TEXT_TOKENS ", metric: text, position: integer?, answers: [@Answer], value: number, against: @PatchedRun?, positions: [integer], "
     "attributions: {*: [number|[number]]}, normalized?: {*: [number?|[number?]]}, gradients?: {*: [[number?]|[[number?]]]}, "
     "sources: [{source: text, point: text, " SHARE ", positions: [{position: integer, " SHARE "}]}]}"},
    {"NextTokens", "{top: [@Prediction], answers: [@Prediction], loss: number?}"},
    {"BeforeAfter", "{" TEXT_TOKENS ", before: @NextTokens, after: @NextTokens?}"},
    {"Lens",
     "{" TEXT_TOKENS ", layers: [{layer: integer, positions: [{position: integer, top: [@Prediction], answers: [@Prediction]}]}]}"},
    {"Components",
     "{" TEXT_TOKENS ", position: integer, answers: [@Answer], total: number, embedding: number, bias: number, attention: [number], "
     "mlp: [number], heads: [[number]]?}"},
    {"OpenAIModel", "{id: text, object: text, created: integer, owned_by: text, context_window: integer, chat_format: text?}"},
    {"Usage", "{prompt_tokens: integer, completion_tokens: integer, total_tokens: integer}"},
    {"TextLogprobs",
     "{tokens: [text], token_logprobs: [number?], top_logprobs: [{*: number}?], text_offset: [integer]}"},
    {"ScoredToken",
     "{token: text, logprob: number, bytes: [integer], top_logprobs: [{token: text, logprob: number, bytes: [integer]}]}"},
    {"ChatLogprobs", "{content: [@ScoredToken], refusal: null}"},
    {"Evaluation",
     "{corpus: text, corpusHash: text, lines: boolean, ends: boolean, documents: integer, tokens: integer, l0: number, mse: number?, "
     "explainedVariance: number?, fvu: number?, cosine: number?, l2Ratio: number?, relativeReconstructionBias: number?, "
     "crossEntropy: {tokens: integer, raw: number?, spliced: number?, withError: number?, "
     "zero: number?, kept: number?}, klDivergence: {spliced: number?, zero: number?, kept: number?}, dead: integer, shares: " SHARE_ROWS ", madeAt: text}"},
    {"LensFrames",
     "{meta: {kind: text, model: text, types: [text], layers_by_type: {*: [integer]}, top_n: integer, prompt_len: integer, "
     "num_completion_tokens: integer, temperature: number, prepend_bos: boolean, reuse_len: integer}, tokens: [{kind: text, "
     "position: integer, token: text, id: integer, is_generated: boolean, is_char_continuation: boolean, "
     "results: [{type: text, top_tokens: [[text]], top_probs: [[number]]}], message_index: null, role: null, channel: null, "
     "section: null}], done: {kind: text, seq_len: integer, prompt_len: integer, vocab_size: integer, completion: text}}"},
    {"ActiveFeatures", "{tokens: [text], activeFeatures: {*: [[number]]}}"},
    {"InferenceSingle", "{activation: {" INFERENCE_VALUES "}, tokens: [text], tokensIsSpecial: [boolean]}"},
    {"InferenceAll",
     "{activations: [{source: text, index: integer, sumValues: number, " INFERENCE_VALUES "}], tokens: [text], counts: null}"},
    {"InferenceTopk",
     "{results: [{tokenPosition: integer, token: text, isSpecial: boolean, topFeatures: " TOP_FEATURES "}], tokens: [text]}"},
    {"List", "{" LIST_MEMBERS "}"},
    {"ListedFeature",
     "{" AT_FEATURE ", source: text, description: text?, addedAt: text, maxActApprox: number?, frac_nonzero: number?, neg_str: [text], "
     "neg_values: [number], pos_str: [text], pos_values: [number], activations: [@Activation], explanations: [@Explanation]}"},
    {"Tokens", "{tokens: [integer], tokenStrings: [text], prependBos: boolean}"},
    {"Done", "{message: text}"},
    {"ExpectedNext", "{token: text, top_logits: [{token: text, prob: number}]}"},
};

static const struct shape shapes[] = {
    {steer_post, .body = "@Steered", .types = EVENTS},
    {steer_load_post, .body = "@SharedSteering"},
    {steer_chat_post, .body = "{STEERED: @SteeredChat?, DEFAULT: @SteeredChat?, id: text?, shareUrl: null, limit: null, "
     "settings: {temperature: number, n_tokens: integer, freq_penalty: number, seed: integer, strength_multiplier: number, "
     "steer_special_tokens: boolean, steer_method: text?}}", .types = EVENTS},
    {activations_post, .body = "@FeatureValues|[@FeatureValues]|@TopByToken|@TopOverText|{results: [@TopByToken|@TopOverText]}"},
    {activation_new_post, .body = "@FeatureValues|[@FeatureValues]"},
    {activation_get_post, .body = "[@Activation]"},
    {search_all_post, .body = "@TopOverText|{results: [@TopOverText]}"},
    {activation_source_post, .body = "{results: [@ActiveFeatures]}"},
    {source_set_get, .body = "@SourceSet"},
    {search_topk_post, .body = "@TopByToken|{results: [@TopByToken]}"},
    {tokenize_post, .body = "@Tokens"},
    {tokenize_v1_post, .body = "@Tokens"},
    {feature_get, .body = "@Feature"},
    {features_post, .body = "[@Feature]"},
    {features_offset_post, .body = "[@Feature]"},
    {explanations_get, .body = "[@ExplanationRow]"},
    {explanation_export_get, .body = "[@ExplanationRow]"},
    {explanation_get, .body = "@Explanation"},
    {explanation_new_post, .body = "@Explanation"},
    {explanation_delete_post, .body = "@Done"},
    {explanation_search_post, .body = "@ExplanationSearch"},
    {explanation_search_model_post, .body = "@ExplanationSearch"},
    {explanation_search_release_post, .body = "@ExplanationSearch"},
    {explanation_search_all_post, .body = "@ExplanationSearch"},
    {model_list_post, .body = "[@ModelWithSets]"},
    {model_get_post, .body = "@ModelWithSets"},
    {model_new_post, .body = "@ModelRow"},
    {source_set_new_post, .body = "@SourceSet"},
    {feature_upload_post, .body = "{message: text, created: integer, existing: [integer]}"},
    {activation_upload_post, .body = "{message: text, created: integer, existing: integer}"},
    {list_new_post, .body = "@List"},
    {list_new_with_post, .body = "@List"},
    {list_add_post, .body = "[{listId: text, " AT_FEATURE ", description: text?}]"},
    {list_edit_post, .body = "@Done"},
    {list_remove_post, .body = "@Done"},
    {list_update_post, .body = "@List"},
    {list_delete_post, .body = "boolean"},
    {model_delete_post, .body = "@Done"},
    {source_set_delete_post, .body = "@Done"},
    {feature_delete_post, .body = "@Done"},
    {list_list_post, .body = "[@List]"},
    {list_get_post, .body = "{" LIST_MEMBERS ", neurons: [@ListedFeature]}"},
    {vector_new_post,
     .body = "{message: text, url: text, vector: {modelId: text, source: text, index: text, label: text?, createdAt: text, "
     "defaultSteerStrength: number, hookName: text, values: [number]}}"},
    {vector_upload_post,
     .body = "{message: text, modelId: text, label: text, format: text, modelHint: text?, vectors: [{source: text, index: text, "
     "hookName: text, length: number}], features: [{modelId: text, layer: text, index: text, strength: number}]}"},
    {vector_download_get, .types = "application/octet-stream"},
    {vector_get_post, .body = "{vector: @Vector}"},
    {vector_list_post, .body = "{vectors: [@Vector]}"},
    {vector_delete_post, .body = "@Done"},
    {umap_post, .body = "{*: [{modelId: text, layer: text, index: text, description: text, umap_cluster: number?, "
                        "umap_log_feature_sparsity: number?, umap_x: number?, umap_y: number?}]}"},
    {cossim_post, .body = "{feature: @FeatureName, topkDecoderCossimFeatures: [{feature: @FeatureName, cosineSimilarity: number}]}"},

    {inference_capabilities_get,
     .body = "{model: text, models: [text], backend: text, device: text?, max_concurrent_requests: integer, max_tokens: integer?, "
     "token_limit: integer, lens_token_limit: integer, activation_token_limit: integer, vram_budget_bytes: integer, "
     "vram_budget_available_bytes: integer, max_num_results: integer, grad_support: text, hooks_available: boolean, "
     "graph_replay: boolean, generation_only: boolean, static_points: [text], static_writes: [text], frozen_points: [text], "
     "writes_available: [text], num_layers: integer, sae_sets: [text], endpoints: {*: boolean}, sae_cache: {enabled: boolean, "
     "budget_bytes: integer, resident_bytes: integer, resident_count: integer, registered_count: integer, host_bytes: integer, "
     "pinned_bytes: integer, hits: integer?, misses: integer, evictions: integer}, capture_points: [text]}"},
    {inference_health_get,
     .body = "{stats: {backend: text, threads: integer, running_requests: integer, waiting_requests: integer, max_running: integer, "
     "max_waiting: integer, kv_cache_bytes: integer, kv_cache_used_bytes: integer, prompt_tokens: integer, "
     "generated_tokens: integer}, summary: text}"},
    {inference_lens_post, .body = "@LensFrames", .types = LINES},
    {lens_prompt_post, .body = "@LensFrames", .types = LINES},
    {inference_vector_post, .body = "{vector: [number], hookName: text, encoderVector: [number], encoderHookName: text}", .types = ARRAYS},
    {inference_cossim_post,
     .body = "{feature: @FeatureName?, topkDecoderCossimFeatures: [{feature: @FeatureName, cosineSimilarity: number}]}"},
    {inference_similarity_post, .body = "{similarityMatrix: [[number]], tokens: [text]}"},
    {inference_completion_post, .body = "{outputs: [{output: text, type: text, logprobs?: [@TokenLogprob]}]}", .types = EVENTS},
    {inference_completion_chat_post,
     .body = "{outputs: [{raw: text, chatTemplate: [@Turn], type: text, logprobs?: [@TokenLogprob]}], "
             "input: {raw: text, chatTemplate: [@Turn]}}", .types = EVENTS},
    {inference_single_post, .body = "@InferenceSingle"},
    {inference_single_batch_post, .body = "{results: [@InferenceSingle]}"},
    {inference_all_post, .body = "@InferenceAll"},
    {inference_all_batch_post, .body = "{results: [@InferenceAll]}"},
    {inference_topk_post, .body = "@InferenceTopk"},
    {inference_topk_batch_post, .body = "{results: [@InferenceTopk]}"},
    {inference_source_post, .body = "{results: [@ActiveFeatures]}"},
    {inference_raw_post,
     .body = "{hookPoint: text, type: text, dtype: text, device: text, results: [{tokenStrings: [text], tokenIds: [integer], "
             "activations: [{layer: integer, tokenIndices: [integer], values: [[number?]]}]}]}", .types = ARRAYS},
    {inference_attention_post,
     .body = "{seqLen: integer, attentionIndices: [integer], attentionValues: [number], maxActivation: number, tokens: [text]}"},

    {lab_run_post, .body = "@Run|{results: [@Run]}", .types = ARRAYS},
    {lab_next_post, .body = "@BeforeAfter|{results: [@BeforeAfter]}"},
    {lab_ablate_post, .body = "@BeforeAfter|{results: [@BeforeAfter]}"},
    {lab_direction_post,
     .body = "{model: text, positive: integer, negative: integer, method: text, row: text, directions: [{point: text, length: number, "
     "separation: number, positiveMean: number, negativeMean: number, rowLength: number, vector?: [number]}], kept: {label: text, "
     "features: [{modelId: text, layer: text, index: text, strength: number}]}?}"},
    {lab_compare_post,
     .body = "{source: text, texts: [{" TEXT_TOKENS ", position: integer}], "
             "features: [{index: integer, first: number, second: number, difference: number}]}"},
    {lab_patch_post,
     .body = "{point: text, axes: text, answers: [@Answer], clean: @PatchedRun, corrupted: @PatchedRun, layers: [integer], "
             "positions?: [integer], heads?: [integer], matrix: [[number?]], values: [[number]]}"},
    {lab_attribute_post, .body = "@Attribution", .types = ARRAYS},
    {steer_logits_post, .body = "{DEFAULT_GENERATION: text?, STEERED_GENERATION: text?, DEFAULT_LOGITS_BY_TOKEN: [@ExpectedNext], STEERED_LOGITS_BY_TOKEN: [@ExpectedNext]}"},
    {lab_graph_post, .body = "@AttributionGraph"},
    {graph_file_get, .body = "@AttributionGraph|@UploadedGraph"},
    {graph_generate_post, .body = "{message: text, s3url: text, url: text, slug: text, numNodes: integer, numLinks: integer}"},
    {graph_get, .body = "@GraphRow"},
    {graph_list_post, .body = "[@GraphRow]"},
    {graph_delete_post, .body = "{message: text}"},
    {graph_feature_get, .body = "{transcoder_id: text, index: integer, examples_quantiles: [{quantile_name: text, examples: [{tokens: [text], "
                                "tokens_acts_list: [number], train_token_ind: integer, is_repeated_datapoint: boolean}]}], top_logits: [text], "
                                "bottom_logits: [text], act_min: number, act_max: number, histogram: [number], "
                                "activation_frequency: number}"},
    {graph_tokenize_post, .body = "{prompt: text, input_tokens: [text], salient_logits: [{token: text, token_id: integer, probability: number}], "
                                  "total_salient_tokens: integer, cumulative_probability: number}"},
    {subgraph_save_post, .body = "{success: boolean, subgraphId: text}"},
    {subgraph_list_post, .body = "{success: boolean, subgraphs: [{id: text, displayName: text?, graphMetadataId: text, pinnedIds: [text], supernodes: [[text]], "
                                 "clerps: [[text]], pruningThreshold: number?, densityThreshold: number?, userId: null, isFeaturedSolution: boolean, createdAt: text, updatedAt: text}]}"},
    {subgraph_delete_post, .body = "{success: boolean, message: text}"},
    {graph_place_post, .body = "{url: text, key: text, putRequestId: text}"},
    {graph_upload_put, .body = "{putRequestId: text}"},
    {graph_save_post, .body = "{message: text, url: text}"},
    {lab_lens_post, .body = "@Lens|{results: [@Lens]}"},
    {lab_components_post, .body = "@Components|{results: [@Components]}"},
    {lab_heads_post,
     .body = "{induction: [[number]], previousToken: [[number]], duplicateToken: [[number]], tokens: [[integer]], "
             "losses: [number]?}"},
    {lab_training_get,
     .body = "{refused: text?, architectures: [text], options: [{name: text, type: text, minimum: number, maximum: number, "
             "architectures: [text], text: text}]}"},
    {lab_points_get,
     .body = "{modelId: text, layers: integer, points: [{name: text, spellings: [text], shape: [text|integer], kind: text, "
             "fixed: text?}], missing: [{name: text, spellings: [text], missing: text}]}"},
    {dictionary_get, .body = "{" AT_SOURCE ", " SOURCE_MEMBERS ", selfTest: {tokens: integer, l0: number?, promisedL0: number?, "
     "explainedVariance: number?, warning: text?}?, provenance: {identity: text?, config: any, description: text?, url: text?, "
     "createdAt: text?}, statistics: {nTokens: integer?, featuresWithStatistics: integer, dead: integer, shares: " SHARE_ROWS ", "
     "conventions: @Conventions}, evaluations: [@Evaluation]}"},
    {density_get,
     .body = "{" AT_SOURCE ", features: integer, nTokens: integer?, featuresWithStatistics: integer, dead: integer, shares: " SHARE_ROWS ", "
     "log10Histogram: {edges: [number], counts: [integer]}, rates?: [number?]}"},
    {dictionary_features_get,
     .body = "{" AT_SOURCE ", total: integer, offset: integer, features: [{index: integer, rate: number?, nFired: integer?, max: number?, "
     "mean: number?, description: text?}]}"},
    {logit_stats_get,
     .body = "{" AT_SOURCE ", features: integer, total: integer, offset: integer, "
     "rows: [{index: integer, mean: number?, std: number?, skewness: number?, kurtosis: number?, rate: number?}]}"},
    {enrichment_post,
     .body = "{" AT_SOURCE ", vocabulary: integer, features: integer, sets: [{name: text, tokens: integer, examples: [text], "
     "top: [{index: integer, score: number, enrichment: number?, end: text}], scores?: [number?]}]}"},
    {token_score_post,
     .body = "{" AT_SOURCE ", positions: {on: integer, elsewhere: integer}, missing: [text], features: [{index: integer, score: number?, "
     "meanOn: number, meanElsewhere: number?, firedOn: integer, firedElsewhere: integer}]}"},
    {dictionary_random_get, .body = "{" AT_SOURCE ", index: integer}"},
    {sources_get,
     .body = "{encoderBytes: integer, budget: integer?, "
     "sources: [{" LISTED_SOURCE ", " SOURCE_MEMBERS "}|{" LISTED_SOURCE ", bytes: integer}]}"},
    {sources_post, .body = "{" AT_SOURCE ", state: text, " SOURCE_MEMBERS "}", .status = 201},
    {source_delete, .body = "{" AT_SOURCE ", state: text}"},
    {jobs_post, .body = "@Job"},
    {jobs_get, .body = "{jobs: [@Job]}"},
    {job_get, .body = "@Job"},
    {job_delete, .body = "@Job"},
    {job_resume_post, .body = "@Job"},
    {job_events_get, .types = "text/event-stream", .event = "@Job"},

    {openai_models_get, .body = "{object: text, data: [@OpenAIModel]}"},
    {openai_model_get, .body = "@OpenAIModel"},
    {chat_completions_post,
     .body = "{" COMPLETION ", choices: [{index: integer, message: {role: text, content: text, refusal: null}, "
             "logprobs: @ChatLogprobs?, finish_reason: text}]}", .types = EVENTS,
     .event = "{" CHUNK ", choices: [{index: integer, delta: {role?: text, content?: text}, logprobs: @ChatLogprobs?, finish_reason: text?}]}"},
    {apply_chat_template_post, .body = "{prompt: text, tokens: [integer]}"},
    {completions_post,
     .body = "{" COMPLETION ", choices: [{index: integer, text: text, logprobs: @TextLogprobs?, finish_reason: text}]}",
     .types = EVENTS,
     .event = "{" CHUNK ", choices: [{index: integer, text: text, logprobs: @TextLogprobs?, finish_reason: text?}]}"},

    {models_get,
     .body = "{models: [{id: text, family: text, dtype: text, kept: text, layers: integer, heads: integer, kvHeads: integer, width: integer, "
     "mlpWidth: integer, context: integer, vocabulary: integer, parameters: integer, bytes: integer, prependsBos: boolean, "
     "neurons: {set: text, layers: integer, perLayer: integer}?, "
     "processed: boolean, sources: [{id: text, " SOURCE_MEMBERS "}]}], stored: [{id: text, displayName: text, url: text?, layers: integer, "
     "loaded: boolean, sources: [{id: text, set: text, layer: integer, features: integer, indices: integer, folded: boolean?}]}]}"},
    {health_get, .body = "{status: text}"},
    {ready_get, .body = "{status: text}"},
    {version_get, .body = "{name: text, version: text, commit: text, backend: text, threads: integer}"},
    {openapi_get, .body = "{openapi: text, info: {...}, servers: [{url: text}], paths: {...}, components: {...}}"},
    {metrics_get, .types = "text/plain"},
    {docs_get, .types = HTML},
    {docs_points_get, .types = HTML},
    {home_get, .types = HTML},
    {page_get, .types = HTML},
    {subject_page_get, .types = HTML},
    {static_get, .types = "text/javascript text/css " HTML " image/svg+xml"},
};

const struct shape *shape_of(const struct route *row) {
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
    if (shapes[i].handler == row->handler) return &shapes[i];
  return NULL;
}

const char *shape_event(const struct shape *shape) {
  if (!shape->types || !strstr(shape->types, "text/event-stream")) return NULL;
  return shape->event ? shape->event : shape->body;
}

const char *shape_name(size_t i, const char **body) {
  if (i >= sizeof names / sizeof names[0]) return NULL;
  *body = names[i].body;
  return names[i].name;
}
