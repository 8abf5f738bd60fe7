using Fleet.Api.Problems;
using Fleet.Contracts;
using Microsoft.AspNetCore.Authorization;
using Microsoft.AspNetCore.OpenApi;
using Microsoft.OpenApi;

namespace Fleet.Api.OpenApi;

/// <summary>The document is the contract: every status, every problem code, and how to authenticate.</summary>
public static class OpenApiSetup
{
    private const string Scheme = "bearer";

    public static void AddFleetOpenApi(this IServiceCollection services) => services.AddOpenApi("v1", options =>
    {
        options.AddDocumentTransformer(DescribeDocument);
        options.AddOperationTransformer(DescribeOperationAsync);
    });

    private static Task DescribeDocument(OpenApiDocument document, OpenApiDocumentTransformerContext context, CancellationToken cancellationToken)
    {
        document.Info = new OpenApiInfo
        {
            Title = "Fleet",
            Version = "v1",
            Description = "Makes guest memory poison follow the VM. Errors are RFC 9457 problem details with a stable `code`; "
                + "times are RFC 3339 in UTC, 64-bit addresses hex strings, frames integers in 4 KiB units.",
        };
        document.Servers = [new OpenApiServer { Url = "/", Description = "The server that this document comes from." }];
        document.Components ??= new OpenApiComponents();
        document.Components.SecuritySchemes ??= new Dictionary<string, IOpenApiSecurityScheme>();
        document.Components.SecuritySchemes[Scheme] = new OpenApiSecurityScheme
        {
            Type = SecuritySchemeType.Http,
            Scheme = "bearer",
            BearerFormat = "fleet_{id}_{secret}",
            Description = "A Fleet token, such as the one in admin.token; or a JWT of the identity provider, where one is set up.",
        };
        DocumentDetails.Apply(document);
        return Task.CompletedTask;
    }

    private static async Task DescribeOperationAsync(
        OpenApiOperation operation, OpenApiOperationTransformerContext context, CancellationToken cancellationToken)
    {
        var metadata = context.Description.ActionDescriptor.EndpointMetadata;
        var problems = metadata.OfType<ProblemMetadata>().SelectMany(item => item.Types).ToList();
        if (!metadata.OfType<IAllowAnonymous>().Any())
        {
            problems.AddRange([ProblemTypes.Unauthenticated, ProblemTypes.Forbidden]);
            if (metadata.OfType<Security.AgentRoute>().Any())
            {
                problems.Add(ProblemTypes.WrongHost);
            }

            // OpenAPI 3.1: for a scheme that is not OAuth the list names the roles that are needed, here the scopes.
            var scopes = metadata.OfType<IAuthorizeData>().Select(data => data.Policy).OfType<string>().ToList();
            operation.Security = [new OpenApiSecurityRequirement { [new OpenApiSecuritySchemeReference(Scheme, context.Document)] = scopes }];
            operation.Description = $"{operation.Description} Scope: `{string.Join("`, `", scopes)}`.".Trim();
        }

        else
        {
            operation.Security = [];
        }

        problems.AddRange([ProblemTypes.RateLimited, ProblemTypes.Internal]);
        if (operation.RequestBody is not null)
        {
            problems.AddRange([ProblemTypes.RequestTimeout, ProblemTypes.BodyTooLarge, ProblemTypes.UnsupportedMediaType]);
        }

        if (context.Description.HttpMethod is not "GET")
        {
            problems.Add(ProblemTypes.StoreUnavailable);
        }

        ParameterSchemas.Apply(operation);
        if (metadata.OfType<TakesIfMatch>().Any())
        {
            operation.Parameters ??= [];
            operation.Parameters.Add(new OpenApiParameter
            {
                Name = "If-Match",
                In = ParameterLocation.Header,
                Description = "ETag that the resource must still have.",
                Schema = new OpenApiSchema { Type = JsonSchemaType.String },
            });
        }

        var body = await context.GetOrCreateSchemaAsync(typeof(ProblemBody), cancellationToken: cancellationToken);
        foreach (var group in problems.Distinct().GroupBy(problem => problem.Status).OrderBy(group => group.Key))
        {
            operation.Responses ??= [];
            operation.Responses[group.Key.ToString(System.Globalization.CultureInfo.InvariantCulture)] = new OpenApiResponse
            {
                Description = string.Join("; ", group.Select(problem => $"`{problem.Code}`: {problem.Title}")),
                Content = new Dictionary<string, OpenApiMediaType>
                {
                    ["application/problem+json"] = new()
                    {
                        Schema = SchemaOf(context.Document, body),
                        Examples = group.ToDictionary(problem => problem.Code, problem => ProblemExamples.Refer(context.Document, problem)),
                    },
                },
                Headers = group.Key is StatusCodes.Status429TooManyRequests ? RetryAfter() : null,
            };
        }
    }

    private static Dictionary<string, IOpenApiHeader> RetryAfter() => new()
    {
        ["Retry-After"] = new OpenApiHeader { Description = "Seconds to wait.", Schema = new OpenApiSchema { Type = JsonSchemaType.Integer, Minimum = "0" } },
    };

    private static OpenApiSchemaReference SchemaOf(OpenApiDocument? document, OpenApiSchema body)
    {
        document?.AddComponent(nameof(ProblemBody), body);
        return new OpenApiSchemaReference(nameof(ProblemBody), document);
    }
}
