namespace Fleet.Lab.Tests.Running;

/// <summary>Where the lab's files are.</summary>
/// <param name="Work">Disks, consoles and monitors of this run's hosts. Short: Unix sockets lie in it.</param>
internal sealed record LabPaths(string Lab, string Artifacts, string Image, string Work)
{
    public static LabPaths Create()
    {
        var image = Environment.GetEnvironmentVariable("FLEET_LAB_IMAGE");
        Assert.True(image is not null, "FLEET_LAB_IMAGE is not set: start the lab with tests/Lab/run");
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "Fleet.sln")))
        {
            folder = folder.Parent ?? throw new DirectoryNotFoundException($"no Fleet.sln above {AppContext.BaseDirectory}");
        }

        var artifacts = Directory.CreateDirectory(Path.Combine(folder.FullName, "artifacts", "lab")).FullName;
        return new LabPaths(Path.Combine(folder.FullName, "tests", "Lab"), artifacts, image, Directory.CreateTempSubdirectory("fleet-lab-").FullName);
    }

    /// <summary>Removes the work folder; with LAB_KEEP=1 it is moved to <c>artifacts/lab/work</c>.</summary>
    public void Finish()
    {
        if (Environment.GetEnvironmentVariable("LAB_KEEP") == "1")
        {
            var kept = Path.Combine(Artifacts, "work");
            Directory.CreateDirectory(kept);
            foreach (var file in Directory.EnumerateFiles(Work, "*", SearchOption.TopDirectoryOnly).Where(file => Path.GetExtension(file) is ".console" or ".log" or ".disk"))
            {
                File.Copy(file, Path.Combine(kept, Path.GetFileName(file)), overwrite: true);
            }
        }

        Directory.Delete(Work, recursive: true);
    }
}
