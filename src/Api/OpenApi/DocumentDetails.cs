using Fleet.Contracts;
using Fleet.Contracts.Changes;
using Fleet.Contracts.Migrations;
using Microsoft.OpenApi;

namespace Fleet.Api.OpenApi;

/// <summary>Fills in what is the same in many places, once the rest of the document is there: descriptions, examples, tags.</summary>
internal static class DocumentDetails
{
    public static void Apply(OpenApiDocument document)
    {
        foreach (var tag in document.Tags ?? new HashSet<OpenApiTag>())
        {
            tag.Description = Descriptions.Tags.GetValueOrDefault(tag.Name ?? string.Empty);
        }

        var schemas = document.Components?.Schemas ?? new Dictionary<string, IOpenApiSchema>();
        ShapeProblem(document, schemas);
        ShapeChange(schemas);
        foreach (var (name, schema) in schemas)
        {
            DescribeMembers(name, schema);
        }

        foreach (var operation in document.Paths.Values.SelectMany(path => path.Operations ?? []).Select(pair => pair.Value))
        {
            AddExample(operation.RequestBody?.Content, operation.OperationId);
            foreach (var response in operation.Responses ?? [])
            {
                AddExample(response.Value.Content, null);
            }
        }
    }

    /// <summary>Of a problem's members those are left out that say nothing, and more may come.</summary>
    private static void ShapeProblem(OpenApiDocument document, IDictionary<string, IOpenApiSchema> schemas)
    {
        if (schemas.TryGetValue(nameof(ProblemBody), out var problem) && problem is OpenApiSchema { Properties: { } members } body)
        {
            body.Required = new HashSet<string> { "type", "title", "status", "code" };
            body.AdditionalPropertiesAllowed = true;
            foreach (var name in body.Required)
            {
                ((OpenApiSchema)members[name]).Type &= ~JsonSchemaType.Null;
            }

            ((OpenApiSchema)members["reasons"]).Items = new OpenApiSchemaReference(nameof(GateReason), document);
        }
    }

    /// <summary>What a change carries may be anything; a schema of its own would be taken for an object.</summary>
    private static void ShapeChange(IDictionary<string, IOpenApiSchema> schemas)
    {
        if (schemas.TryGetValue(nameof(ChangeResource), out var change) && change.Properties is { } members)
        {
            members["data"] = new OpenApiSchema();
            schemas.Remove(nameof(System.Text.Json.JsonElement));
        }
    }

    private static void DescribeMembers(string name, IOpenApiSchema schema)
    {
        foreach (var (member, definition) in schema.Properties ?? new Dictionary<string, IOpenApiSchema>())
        {
            switch (definition)
            {
                case OpenApiSchemaReference { Reference.Description: null } reference:
                    reference.Reference.Description = Descriptions.Of(name, member);
                    break;
                case OpenApiSchema { Description: null } own:
                    // Where the member may be null its comment has landed on the reference inside.
                    own.Description = own.OneOf?.OfType<OpenApiSchemaReference>().Select(either => either.Reference.Description).FirstOrDefault(text => text is not null)
                        ?? Descriptions.Of(name, member);
                    break;
            }
        }
    }

    private static void AddExample(IDictionary<string, OpenApiMediaType>? content, string? operation)
    {
        if (content is not null && content.TryGetValue("application/json", out var media) && media is { Example: null, Examples: null })
        {
            var schema = media.Schema as OpenApiSchemaReference ?? media.Schema?.OneOf?.OfType<OpenApiSchemaReference>().FirstOrDefault();
            media.Example = Examples.OfBody(schema?.Reference.Id ?? operation ?? string.Empty);
        }
    }
}
