using System.Globalization;
using System.Text.Json.Nodes;
using Fleet.Api.Problems;
using Microsoft.OpenApi;

namespace Fleet.Api.OpenApi;

/// <summary>Every problem as a named example of the document, to which the answers refer.</summary>
internal static class ProblemExamples
{
    public static IOpenApiExample Refer(OpenApiDocument? document, ProblemType type)
    {
        // Some codes stand for a path that names nothing (404) and for a body that does (409).
        var name = string.Create(CultureInfo.InvariantCulture, $"{type.Status}-{type.Code}");
        document?.AddComponent<IOpenApiExample>(name, new OpenApiExample { Summary = type.Title, Value = ValueOf(type) });
        return new OpenApiExampleReference(name, document);
    }

    private static JsonObject ValueOf(ProblemType type)
    {
        var value = new JsonObject
        {
            ["type"] = $"urn:fleet:problem:{type.Code}",
            ["title"] = type.Title,
            ["status"] = type.Status,
            ["code"] = type.Code,
        };
        if (type == ProblemTypes.InvalidRequest)
        {
            value["errors"] = new JsonObject { ["limit"] = new JsonArray("A whole number from 1 to 1000.") };
        }
        else if (type == ProblemTypes.GateDenied)
        {
            value["reasons"] = new JsonArray(new JsonObject { ["code"] = "target-drained", ["detail"] = "host-b is drained." });
        }
        else if (type == ProblemTypes.SpoolGap)
        {
            value["expected"] = 18;
        }
        else if (type == ProblemTypes.ChangesGone)
        {
            (value["floor"], value["revision"]) = (4000, 4713);
        }
        else if (type == ProblemTypes.CoveredByLarger)
        {
            (value["frame"], value["shift"]) = (4608, 21);
        }

        return value;
    }
}
