using Fleet.Api.Lists;
using Fleet.Contracts;
using Microsoft.OpenApi;

namespace Fleet.Api.OpenApi;

/// <summary>Parameters are read as text, to tell all errors at once; the document says what they are.</summary>
internal static class ParameterSchemas
{
    public static void Apply(OpenApiOperation operation)
    {
        foreach (var parameter in (operation.Parameters ?? []).OfType<OpenApiParameter>())
        {
            parameter.Schema = (operation.OperationId, parameter.Name) switch
            {
                (_, "vm" or "host" or "migration") => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = ResourceId.Pattern },
                (_, "token") => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = "^[0-9a-f]{16}$" },
                (_, "limit") => new OpenApiSchema
                {
                    Type = JsonSchemaType.Integer,
                    Format = "int32",
                    Minimum = "1",
                    Maximum = ListQuery.MaximumLimit.ToString(System.Globalization.CultureInfo.InvariantCulture),
                },
                (_, "frame" or "incarnation" or "asOf") or ("ListPages", "since") => new OpenApiSchema
                {
                    Type = JsonSchemaType.Integer,
                    Format = "int64",
                    Minimum = "0",
                },
                ("ListHosts", "drained") => new OpenApiSchema { Type = JsonSchemaType.Boolean },
                ("ListHits" or "ListFaults" or "SummarizeFaults", "since") => new OpenApiSchema { Type = JsonSchemaType.String, Format = "date-time" },
                (_, "bucket") => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = "^1[hd]$" },
                (_, "wait") => new OpenApiSchema { Type = JsonSchemaType.String, Pattern = "^[0-9]+[smhd]$" },
                _ => parameter.Schema,
            };
            parameter.Description ??= Descriptions.OfParameter(parameter.Name ?? string.Empty);
            parameter.Required |= (operation.OperationId, parameter.Name) is ("StreamDesiredState", "incarnation") or ("ClearPage", "reason");
        }
    }
}
