using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Microsoft.AspNetCore.Http.Json;

namespace Fleet.Api.Json;

/// <summary>Bodies are taken literally: no unknown members, no duplicates, no numbers in strings, no missing members.</summary>
public static class StrictJson
{
    public static void Configure(JsonOptions options)
    {
        var json = options.SerializerOptions;
        json.UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow;
        json.AllowDuplicateProperties = false;
        json.NumberHandling = JsonNumberHandling.Strict;
        json.RespectNullableAnnotations = true;
        json.PropertyNameCaseInsensitive = false;
        json.PropertyNamingPolicy = JsonNamingPolicy.CamelCase;
        json.MaxDepth = 16;
        json.TypeInfoResolverChain.Insert(0, FleetJson.Default.WithAddedModifier(RequireWhatHasNoDefault));
    }

    /// <summary>A frame left out must not become frame 0: constructor parameters that are neither nullable nor optional must be there.</summary>
    private static void RequireWhatHasNoDefault(JsonTypeInfo type)
    {
        foreach (var property in type.Properties)
        {
            if (property.AssociatedParameter is { HasDefaultValue: false } parameter
                && !parameter.IsNullable
                && Nullable.GetUnderlyingType(parameter.ParameterType) is null)
            {
                property.IsRequired = true;
            }
        }
    }
}
