using System.Globalization;
using System.Text;
using Fleet.Linux;

namespace Fleet.HostAgent.State;

/// <summary>
/// Which agents may use a state folder, in its file <c>format</c>: a number, and the version of the agent that wrote it. A newer agent reads
/// every older format; an older one refuses a newer number. The number grows with a change that an older agent would misread, or whose
/// fields it would drop when it writes a file again: it ignores fields that it does not know.
/// </summary>
internal static class StateFormat
{
    /// <summary>1: as of version 0.1.0. Folders without the file are older, and of the same format.</summary>
    public const int Newest = 1;

    /// <summary>Call with the folder's lock held, before any other file is read.</summary>
    /// <exception cref="InvalidDataException">A newer agent has used the folder, or the file is damaged.</exception>
    public static void Claim(string folder)
    {
        var path = Path.Combine(folder, "format");
        var found = File.Exists(path) ? File.ReadAllText(path) : "0";
        if (!int.TryParse(found.Split(' ', '\n')[0], NumberStyles.None, CultureInfo.InvariantCulture, out var format))
        {
            throw new InvalidDataException($"{path} is damaged: it must begin with a number");
        }

        if (format > Newest)
        {
            throw new InvalidDataException(
                $"the state folder {folder} was used by a newer agent (format {found.Trim()}), and this one reads up to format {Newest}: start the newer agent again. What is armed stays armed meanwhile");
        }

        if (format < Newest)
        {
            Write(path);
        }
    }

    private static void Write(string path)
    {
        try
        {
            DurableFile.Write(path, Encoding.ASCII.GetBytes($"{Newest} {AgentVersion.Text}\n"));
        }
        catch (IOException)
        {
            // Full or read-only: nothing newer than what is there can be written either.
        }
    }
}
