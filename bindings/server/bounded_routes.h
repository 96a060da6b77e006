// Upstream's routes, with what a budget adds to their answers.
#pragma once

#include "server-context.h"

namespace pytriattn::server {

struct BoundedRoutes : server_routes { BoundedRoutes(const common_params & params, server_context & server); };

}  // namespace pytriattn::server
