using Microsoft.AspNetCore.Http.Metadata;

namespace Fleet.Api.Agents;

/// <summary>A limit of its own for a route whose bodies may be larger than the server's limit.</summary>
public sealed record RequestSizeLimit(long? MaxRequestBodySize) : IRequestSizeLimitMetadata;
