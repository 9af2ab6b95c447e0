/* routes.c: the table of endpoints, nothing else. A row without a handler is planned: it is documented as such
 * and answers 501. */
#include "api/handlers.h"

#define PLANNED NULL, NULL, 0

const struct route routes[] = {
    /* the card's four */
    {"POST", "/steer", "Continue a prompt with features turned up or down", FAMILY_SHORT, steer_fields, steer_post,
     ROUTE_ENGINE},
    {"POST", "/activations", "Which features a text turns on", FAMILY_SHORT, activations_fields, activations_post,
     ROUTE_ENGINE},
    {"GET", "/feature/{model}/{source}/{index}", "Statistics of a feature", FAMILY_SHORT, PLANNED},
    {"GET", "/explanations", "Search or export explanations", FAMILY_SHORT, PLANNED},

    /* Neuronpedia's web API */
    {"POST", "/api/steer", "Continue a prompt with features turned up or down", FAMILY_NEURONPEDIA, steer_fields,
     steer_post, ROUTE_ENGINE},
    {"POST", "/api/steer-chat", "Steer a chat", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/steer-load", "Load a saved steering result", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/activation/new", "The values of one feature over a text", FAMILY_NEURONPEDIA, activation_new_fields,
     activation_new_post, ROUTE_ENGINE},
    {"POST", "/api/activation/get", "Stored activations of a feature", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/activation/source", "All active features of a source over a text", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/activation/upload-batch", "Store activations", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/search-all", "The strongest features of a source set over a text", FAMILY_NEURONPEDIA,
     search_all_fields, search_all_post, ROUTE_ENGINE},
    {"POST", "/api/search-topk-by-token", "The strongest features of a source at each token", FAMILY_NEURONPEDIA,
     search_topk_fields, search_topk_post, ROUTE_ENGINE},
    {"POST", "/api/tokenize", "Cut a text into tokens", FAMILY_NEURONPEDIA, tokenize_fields, tokenize_post, 0},
    {"POST", "/api/model/list", "The loaded models with their source sets", FAMILY_NEURONPEDIA, model_list_fields,
     model_list_post, 0},
    {"POST", "/api/model/get", "One loaded model with its source sets", FAMILY_NEURONPEDIA, model_get_fields,
     model_get_post, 0},
    {"POST", "/api/model/new", "Register a model", FAMILY_NEURONPEDIA, PLANNED},
    {"GET", "/api/feature/{model}/{source}/{index}", "Statistics of a feature", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/features", "Statistics of several features", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/features-offset", "Features in index order", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/feature/upload-batch", "Store features", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/search", "Search the explanations of sources", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/search-model", "Search the explanations of a model", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/search-release", "Search the explanations of a release", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/search-all", "Search all explanations", FAMILY_NEURONPEDIA, PLANNED},
    {"GET", "/api/explanation/export", "Export the explanations of a source", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/new", "Store an explanation", FAMILY_NEURONPEDIA, PLANNED},
    {"GET", "/api/explanation/{id}", "One explanation", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/explanation/{id}/delete", "Delete an explanation", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/vector/new", "Store a steering vector", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/vector/get", "Read a steering vector", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/vector/list-owned", "List steering vectors", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/vector/delete", "Delete a steering vector", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/cossim", "Features nearest to a feature", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/umap", "A map of a source's features", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/similarity-matrix-pred", "Predicted similarities of tokens", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/lens/prompt", "What each layer would predict", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/source-set/new", "Register a source set", FAMILY_NEURONPEDIA, PLANNED},
    {"GET", "/api/source-set/{model}/{name}", "One source set", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/api/list/{verb}", "Lists of features", FAMILY_NEURONPEDIA, PLANNED},

    /* Neuronpedia's inference API */
    {"POST", "/v1/tokenize", "Cut a text into tokens", FAMILY_NEURONPEDIA, tokenize_v1_fields, tokenize_v1_post, 0},
    {"GET", "/v1/capabilities", "What this server can do", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/activation/{form}", "Activations, as the inference server gives them", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/steer/completion", "Steer a prompt, as the inference server does", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/steer/completion-chat", "Steer a chat, as the inference server does", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/apply-chat-template", "Write a chat as the model reads it", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/lens/prompt", "What each layer would predict", FAMILY_NEURONPEDIA, PLANNED},
    {"POST", "/v1/util/{verb}", "Vectors and similarities of a dictionary", FAMILY_NEURONPEDIA, PLANNED},

    /* OpenAI */
    {"GET", "/v1/models", "The loaded models, as OpenAI lists them", FAMILY_OPENAI, PLANNED},
    {"POST", "/v1/completions", "Continue a prompt, with optional steering", FAMILY_OPENAI, PLANNED},
    {"POST", "/v1/chat/completions", "Continue a chat, with optional steering", FAMILY_OPENAI, PLANNED},

    /* the laboratory */
    {"POST", "/v1/lab/run", "Run texts with taps and edits at any point", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/next", "The next-token table, with edits", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/compare", "Features that differ between two prompts", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/patch", "Activation patching", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/heads", "Scores of attention heads", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/ablate", "Ablate features or heads", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/attribute", "Attribute a metric to features", FAMILY_LAB, PLANNED},
    {"GET", "/v1/lab/dictionaries/{model}/{source}", "Shape and quality of a dictionary", FAMILY_LAB, PLANNED},
    {"GET", "/v1/lab/dictionaries/{model}/{source}/density", "How often each feature fires", FAMILY_LAB, PLANNED},
    {"GET", "/v1/lab/dictionaries/{model}/{source}/logit-stats", "Moments of the logit weights", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/dictionaries/{model}/{source}/enrichment", "Token sets among features", FAMILY_LAB, PLANNED},
    {"POST", "/v1/lab/dictionaries/{model}/{source}/token-set-score", "Features that prefer a token set", FAMILY_LAB,
     PLANNED},
    {"POST", "/v1/jobs", "Start a long piece of work", FAMILY_LAB, PLANNED},
    {"GET", "/v1/jobs", "List long pieces of work", FAMILY_LAB, PLANNED},
    {"GET", "/v1/jobs/{id}", "Progress of a long piece of work", FAMILY_LAB, PLANNED},
    {"DELETE", "/v1/jobs/{id}", "Cancel a long piece of work", FAMILY_LAB, PLANNED},
    {"GET", "/v1/jobs/{id}/events", "Progress as a stream", FAMILY_LAB, PLANNED},

    /* operations */
    {"GET", "/", "The dashboard: models, sources, search", FAMILY_OPERATIONS, NULL, home_get, ROUTE_OPEN},
    {"GET", "/docs", "A page with every endpoint and field", FAMILY_OPERATIONS, NULL, docs_get, 0},
    {"GET", "/openapi.json", "Every endpoint and field as OpenAPI 3.1", FAMILY_OPERATIONS, NULL, openapi_get, 0},
    {"GET", "/models", "The loaded models with their sources", FAMILY_OPERATIONS, NULL, models_get, 0},
    {"GET", "/health", "Whether the daemon is alive", FAMILY_OPERATIONS, NULL, health_get, 0},
    {"GET", "/ready", "Whether requests are served; 503 until the models are loaded and while shutting down",
     FAMILY_OPERATIONS, NULL, ready_get, 0},
    {"GET", "/metrics", "Counters in Prometheus' text format", FAMILY_OPERATIONS, NULL, metrics_get, 0},
    {"GET", "/version", "Version, commit and backend", FAMILY_OPERATIONS, NULL, version_get, 0},

    /* the dashboard; the last three fit many paths and stand last */
    {"GET", "/static/{file}", "A file of the dashboard", FAMILY_OPERATIONS, NULL, static_get, ROUTE_OPEN},
    {"GET", "/steer", "The page that steers", FAMILY_OPERATIONS, NULL, page_get, ROUTE_OPEN},
    {"GET", "/steer/{share}", "The page of a shared steering result", FAMILY_OPERATIONS, NULL, page_get, ROUTE_OPEN},
    {"GET", "/inspect", "The page that looks into a text", FAMILY_OPERATIONS, NULL, page_get, ROUTE_OPEN},
    {"GET", "/jobs", "The page of long pieces of work", FAMILY_OPERATIONS, NULL, page_get, ROUTE_OPEN},
    {"GET", "/{model}", "The page of a model", FAMILY_OPERATIONS, NULL, subject_page_get, ROUTE_OPEN},
    {"GET", "/{model}/{source}", "The page of a source", FAMILY_OPERATIONS, NULL, subject_page_get, ROUTE_OPEN},
    {"GET", "/{model}/{source}/{index}", "The page of a feature; embed=true for a frame", FAMILY_OPERATIONS, NULL,
     subject_page_get, ROUTE_OPEN},
};

const size_t n_routes = sizeof routes / sizeof routes[0];
