using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Fleet.HostAgent.State;

/// <summary>Reads a file of the state folder. It is written whole or not at all, so a damaged one is the disk's doing or a person's.</summary>
internal static class StateFile
{
    /// <exception cref="InvalidDataException">It is not what this agent wrote; the message names the file.</exception>
    public static T Read<T>(string path, JsonTypeInfo<T> type, Predicate<T> isComplete)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllBytes(path), type) is { } record && isComplete(record)
                ? record
                : throw new InvalidDataException($"{path} is damaged: a field is missing");
        }
        catch (JsonException exception)
        {
            throw new InvalidDataException($"{path} is damaged: {exception.Message}", exception);
        }
    }
}
